# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four kinds of PATCH."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from sandbox.server.kube.errors import KubeError, bad_request
from sandbox.server.kube.kinds import Object

MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "secrets": "name",
    "taints": "key",
    "topologySpreadConstraints": "topologyKey",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists of objects that a strategic merge takes element by element, and what tells elements apart."""
PORTS = ("containerPort", "port")
"""What tells a container's ports apart, and a service's."""
PRIMITIVE = ("finalizers",)
"""Lists of words that a strategic merge unites."""


def merge(value: Any, patch: Any) -> Any:
    """Return a value with a JSON merge patch (RFC 7386) applied."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if inner is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), inner)
    return merged


def _merge_key(name: str, elements: list[Any]) -> str | None:
    if not all(isinstance(element, dict) for element in elements):
        return None
    if name == "ports":
        return next((key for key in PORTS if any(key in it for it in elements)), None)
    return MERGE_KEYS.get(name)


def strategic(value: Any, patch: Any, name: str = "") -> Any:
    """Return a value with a strategic merge patch applied; name is the field that it is in."""
    if isinstance(patch, dict):
        return _strategic_object(value, patch)
    if isinstance(patch, list) and isinstance(value, list):
        return _strategic_list(value, patch, name)
    if isinstance(patch, list) and _merge_key(name, patch):
        return [strategic({}, it) for it in patch if it.get("$patch") != "delete"]
    return copy.deepcopy(patch)


def _strategic_object(value: Any, patch: Object) -> Object:
    merged = dict(value) if isinstance(value, dict) else {}
    if patch.get("$patch") == "replace":
        merged = {}
    kept = patch.get("$retainKeys")
    if kept is not None:
        merged = {key: inner for key, inner in merged.items() if key in kept}
    for key, inner in patch.items():
        directive, _unused, field = key.partition("/")
        if directive == "$deleteFromPrimitiveList":
            merged[field] = [word for word in merged.get(field, []) if word not in inner]
        elif key.startswith("$"):
            continue
        elif inner is None:
            merged.pop(key, None)
        else:
            merged[key] = strategic(merged.get(key), inner, key)
    for key, order in patch.items():
        directive, _unused, field = key.partition("/")
        if directive == "$setElementOrder" and isinstance(merged.get(field), list):
            merged[field] = _ordered(merged[field], order, field)
    return merged


def _strategic_list(value: list[Any], patch: list[Any], name: str) -> list[Any]:
    if name in PRIMITIVE:
        return value + [word for word in patch if word not in value]
    key = _merge_key(name, [*value, *patch])
    if key is None or {"$patch": "replace"} in patch:
        return [copy.deepcopy(element) for element in patch if element != {"$patch": "replace"}]
    merged = list(value)
    for element in patch:
        place = next((n for n, it in enumerate(merged) if it.get(key) == element.get(key)), None)
        if element.get("$patch") == "delete":
            merged = [it for it in merged if it.get(key) != element.get(key)]
        elif place is None:
            merged.append(strategic({}, element))
        else:
            merged[place] = strategic(merged[place], element)
    return merged


def _ordered(elements: list[Any], order: list[Any], name: str) -> list[Any]:
    key = _merge_key(name, [*elements, *order])
    words = [it.get(key) if key else it for it in order]

    def place(element: Any) -> int:
        word = element.get(key) if key else element
        return words.index(word) if word in words else len(words)

    return sorted(elements, key=place)


def json_patch(value: Object, operations: Any) -> Object:
    """Return an object with a JSON patch (RFC 6902: add, remove, replace, test) applied. Raises KubeError."""
    if not isinstance(operations, list):
        raise bad_request("wanted a list of operations in a JSON patch")
    result = copy.deepcopy(value)
    for operation in operations:
        try:
            _operate(result, operation)
        except (KeyError, IndexError, TypeError, ValueError):
            why = f"the server rejected our request due to an error in our request: {operation}"
            raise KubeError(422, "Invalid", why) from None
    return result


def _operate(result: Any, operation: Object) -> None:
    words = [
        word.replace("~1", "/").replace("~0", "~") for word in operation["path"].split("/")[1:]
    ]
    holder, what = result, operation["op"]
    for word in words[:-1]:
        holder = holder[int(word)] if isinstance(holder, list) else holder[word]
    last: Any = words[-1]
    if isinstance(holder, list):
        last = len(holder) if last == "-" else int(last)
    if what == "add" and isinstance(holder, list):
        holder.insert(last, operation["value"])
    elif what == "add":
        holder[last] = operation["value"]
    elif what == "remove":
        del holder[last]
    elif what == "replace":
        holder[last] = (holder[last], operation["value"])[1]
    elif what != "test" or holder[last] != operation["value"]:
        raise ValueError(what)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, value) of everything in an object that is not an object itself."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif path:
        yield path, value


def without(value: Object, path: tuple[str, ...]) -> Object:
    """Return an object without what is at a path."""
    if path[0] not in value:
        return value
    if len(path) == 1:
        return {key: inner for key, inner in value.items() if key != path[0]}
    inner = value[path[0]]
    return {**value, path[0]: without(inner, path[1:])} if isinstance(inner, dict) else value
