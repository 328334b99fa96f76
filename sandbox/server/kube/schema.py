# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom objects held against the schema of their definition: defaults, pruning, and what is wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.server.validate import TYPES

Problem = tuple[str, str]
Schema = Mapping[str, Any]

TOP = ("apiVersion", "kind", "metadata")
KEEPS = "x-kubernetes-preserve-unknown-fields"


def defaulted(value: Any, schema: Schema) -> Any:
    """Return a value with the defaults that the schema has for what is missing in it."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        filled = {
            name: copy.deepcopy(inner["default"])
            for name, inner in properties.items()
            if "default" in inner and name not in value
        }
        others = schema.get("additionalProperties")
        rest = others if isinstance(others, dict) else {}
        return {
            name: defaulted(inner, properties.get(name, rest))
            for name, inner in {**value, **filled}.items()
        }
    if isinstance(value, list):
        return [defaulted(inner, schema.get("items", {})) for inner in value]
    return value


def _is(value: object, schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    kind = schema.get("type")
    if kind is None or (value is None and schema.get("nullable")):
        return True
    return isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")


def problems(value: Any, schema: Schema, where: str = "") -> Iterator[Problem]:
    """Yield (path, what is wrong) of a value; unknown fields are not told here."""
    if not _is(value, schema):
        yield (
            where,
            f"Invalid value: {value!r}: {where} must be of type {schema.get('type', 'integer or string')}",
        )
        return
    if "enum" in schema and value not in schema["enum"]:
        words = ", ".join(f'"{word}"' for word in schema["enum"])
        yield where, f"Unsupported value: {value!r}: supported values: {words}"
    yield from _bounds(value, schema, where)
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}.{name}".lstrip("."), "Required value"
        for name, inner in value.items():
            yield from problems(inner, _part(schema, name), f"{where}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from problems(inner, schema.get("items", {}), f"{where}[{index}]")


def _bounds(value: Any, schema: Schema, where: str) -> Iterator[Problem]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and value < schema.get("minimum", value):
        why = f"should be greater than or equal to {schema['minimum']}"
        yield where, f"Invalid value: {value}: {where} in body {why}"
    if number and value > schema.get("maximum", value):
        why = f"should be less than or equal to {schema['maximum']}"
        yield where, f"Invalid value: {value}: {where} in body {why}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield where, f"Invalid value: {value!r}: {where} in body should match '{schema['pattern']}'"


def _part(schema: Schema, name: str) -> Schema:
    others = schema.get("additionalProperties")
    found: Schema = schema.get("properties", {}).get(
        name, others if isinstance(others, dict) else {}
    )
    return found


def unknown(value: Any, schema: Schema, where: str = "") -> Iterator[str]:
    """Yield the paths of the fields that the schema does not have."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unknown(inner, schema.get("items", {}), f"{where}[{index}]")
    if not isinstance(value, dict) or schema.get(KEEPS) or "properties" not in schema:
        # What has additionalProperties, or no schema at all, takes any name.
        free = schema.get("additionalProperties") if isinstance(value, dict) else None
        if isinstance(free, dict):
            for name, inner in value.items():
                yield from unknown(inner, free, f"{where}.{name}".lstrip("."))
        return
    for name, inner in value.items():
        path = f"{where}.{name}".lstrip(".")
        if name in schema["properties"]:
            yield from unknown(inner, schema["properties"][name], path)
        elif where or name not in TOP:
            yield path


def pruned(value: Any, schema: Schema, top: bool = True) -> Any:
    """Return a value without the fields that the schema does not have."""
    if isinstance(value, list):
        return [pruned(inner, schema.get("items", {}), False) for inner in value]
    if not isinstance(value, dict):
        return value
    properties, free = schema.get("properties"), schema.get("additionalProperties")
    if properties is None:
        part = free if isinstance(free, dict) else {}
        return {name: pruned(inner, part, False) for name, inner in value.items()}
    return {
        name: pruned(inner, properties.get(name, {}), False)
        for name, inner in value.items()
        if name in properties or schema.get(KEEPS) or (top and name in TOP)
    }
