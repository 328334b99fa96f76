# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and responses held against Google's own discovery documents, of Compute Engine v1 above all.

The documents come with google-api-python-client; the server does without where that is not installed.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]

APIS = {
    "compute": (re.compile("/compute/v1/"), "/compute/v1/"),
    "container": (re.compile("/v1/projects/[^/:]+/locations/"), "/"),
}
"""Which paths are whose, and what of them a document's paths do not have."""
DOCUMENTS = Path("discovery_cache", "documents")
RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}
UNDOCUMENTED = {"returnPartialSuccess"}
"""Query parameters that gcloud sends and Google takes, though the document does not have them."""
TIMES = {"creationTimestamp", "insertTime", "startTime", "endTime", "lastStartTimestamp"}


@dataclass(frozen=True)
class Problem:
    """What is wrong, in Google's words, with the reason that goes into an error body."""

    reason: str
    message: str
    fatal: bool = True
    """Whether Google refuses such a request, or only ignores the field."""


@dataclass(frozen=True)
class Context:
    """What is being checked: a method's request (or its response), and whether null may delete."""

    method: str
    request: bool
    patch: bool = False


class Discovery:
    """A document, indexed. Method ids have no "compute." in front: "instances.insert"."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.schemas: Mapping[str, Schema] = document["schemas"]
        self.common: Mapping[str, Any] = document["parameters"]
        self.methods: dict[str, Mapping[str, Any]] = {}
        self._index: dict[tuple[str, int], list[tuple[str, re.Pattern[str]]]] = {}
        self.api = document["name"]
        for method in _methods(document):
            name, path = method["id"].removeprefix(f"{self.api}."), method["flatPath"]
            self.methods[name] = method
            pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
            place = (method["httpMethod"], path.count("/"))
            self._index.setdefault(place, []).append((name, pattern))

    def match(self, verb: str, path: str) -> tuple[str, dict[str, str]] | None:
        """Return the method of a path below /compute/v1/ and its parameters, or None."""
        found = [
            (name, hit)
            for name, pattern in self._index.get((verb, path.count("/")), [])
            if (hit := pattern.fullmatch(path))
        ]
        if not found:
            return None
        name, hit = min(found, key=lambda pair: len(pair[1].groups()))
        return name, {key: unquote(value) for key, value in hit.groupdict().items()}

    def request_problems(
        self,
        method: str,
        query: Mapping[str, str],
        body: Any,
        path: Mapping[str, str] | None = None,
        strict: bool = False,
    ) -> list[Problem]:
        """Return what is wrong with a request. strict: also what Google would only ignore."""
        spec = self.methods.get(method)
        if spec is None:
            return [Problem("notFound", f"{self.api}.{method} is no method of {self.api} v1")]
        problems = list(self._parameters(spec, query, path or {}))
        if "request" in spec and body is None:
            problems.append(Problem("required", "Required field 'resource' not specified"))
        elif "request" in spec:
            context = Context(spec["id"], True, spec["httpMethod"] == "PATCH")
            problems += self._walk(body, spec["request"], "resource", context)
        elif body:
            problems.append(Problem("invalid", f"{spec['id']} takes no body"))
        return [problem for problem in problems if strict or problem.fatal]

    def response_problems(self, method: str, status: int, body: Any) -> list[str]:
        """Return what is wrong with a response."""
        spec = self.methods[method]
        if status >= 400:
            return _error_problems(status, body)
        if "response" not in spec:
            return [f"{method} has no response body"] if body else []
        context = Context(spec["id"], False)
        found = self._walk(body, spec["response"], "response", context)
        return [problem.message for problem in found]

    def _parameters(
        self, spec: Mapping[str, Any], query: Mapping[str, str], path: Mapping[str, str]
    ) -> Iterator[Problem]:
        declared = spec.get("parameters", {})
        for name, value in (*path.items(), *query.items()):
            parameter = declared.get(name) or self.common.get(name)
            if parameter is None and name in UNDOCUMENTED:
                yield Problem("invalidParameter", f"'{name}' is not documented", fatal=False)
            elif parameter is None:
                yield Problem(
                    "invalidParameter", f'Unknown name "{name}": Cannot bind query parameter.'
                )
            elif "pattern" in parameter and not re.fullmatch(parameter["pattern"], value):
                yield _mismatch(name, value, parameter["pattern"])
            elif parameter["type"] == "boolean" and value.lower() not in ("true", "false"):
                yield Problem(
                    "invalidParameter", f"Invalid value at '{name}' (TYPE_BOOL), \"{value}\""
                )
            elif parameter["type"] == "integer" and not re.fullmatch(r"-?\d+", value):
                yield Problem(
                    "invalidParameter", f"Invalid value at '{name}' (TYPE_INT32), \"{value}\""
                )
        for name, parameter in declared.items():
            if parameter.get("required") and parameter["location"] == "query" and name not in query:
                yield Problem("required", f"Required parameter: {name}")

    def _walk(self, value: Any, schema: Schema, where: str, context: Context) -> Iterator[Problem]:
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"]]
        if value is None and context.patch:
            return
        kind = schema.get("type", "any")
        if kind == "any":
            return
        if not _is(value, kind):
            shown = json.dumps(value)
            # 64 bits travel as text, but Google reads a number as well.
            number = schema.get("format") in ("int64", "uint64") and _is(value, "integer")
            fatal = not (number and context.request)
            yield Problem("invalid", f"Invalid value at '{where}' (wanted {kind}), {shown}", fatal)
        elif kind == "array":
            for index, element in enumerate(value):
                yield from self._walk(element, schema["items"], f"{where}[{index}]", context)
        elif kind == "object":
            yield from self._object(value, schema, where, context)
        else:
            yield from _scalar(value, schema, where)

    def _object(
        self, value: dict[str, Any], schema: Schema, where: str, context: Context
    ) -> Iterator[Problem]:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, inner in value.items():
            part = f"{where}.{name}"
            if name in properties:
                if context.request and name != "kind" and _output_only(properties[name]):
                    yield Problem("invalid", f"'{part}' is output only", fatal=False)
                yield from self._walk(inner, properties[name], part, context)
                yield from _times(name, inner, part, context)
            elif others is not None:
                yield from self._walk(inner, others, part, context)
            else:
                text = f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': "
                yield Problem("badRequest", f"{text}Cannot find field.")
        if not context.request:
            return
        for name, inner in properties.items():
            needed = inner.get("annotations", {}).get("required", ())
            if context.method in needed and name not in value:
                yield Problem("required", f"Required field '{where}.{name}' not specified")


def _methods(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for resource in node.get("resources", {}).values():
        yield from resource.get("methods", {}).values()
        yield from _methods(resource)


def _is(value: object, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")


def _output_only(schema: Schema) -> bool:
    return bool(schema.get("readOnly")) or str(schema.get("description", "")).startswith(
        "[Output Only]"
    )


def _mismatch(where: str, value: str, pattern: str) -> Problem:
    text = f"Invalid value for field '{where}': '{value}'. Must be a match of regex '{pattern}'"
    return Problem("invalid", text)


def _times(name: str, value: Any, where: str, context: Context) -> Iterator[Problem]:
    if context.request or name not in TIMES or not isinstance(value, str):
        return
    try:
        good = datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        good = False
    if not good:
        yield Problem("invalid", f"'{where}' is {value!r}: no RFC 3339 time with an offset")


def _scalar(value: Any, schema: Schema, where: str) -> Iterator[Problem]:
    if "enum" in schema and value not in schema["enum"]:
        words = ", ".join(schema["enum"])
        text = f"Invalid value for field '{where}': '{value}'. Must be one of [{words}]"
        yield Problem("invalid", text)
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        yield _mismatch(where, value, schema["pattern"])
    wanted = schema.get("format", "")
    if wanted in RANGES:
        low, high = RANGES[wanted]
        if not re.fullmatch(r"-?\d+", str(value)) or not low <= int(value) <= high:
            yield Problem("invalid", f"Invalid value at '{where}' (wanted {wanted}), \"{value}\"")
    elif wanted == "byte":
        try:
            base64.b64decode(value, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            yield Problem("invalid", f"Invalid value at '{where}' (TYPE_BYTES), \"{value}\"")


def _error_problems(status: int, body: Any) -> list[str]:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or error.get("code") != status:
        return [f"a {status} needs an error with that code, found {body!r}"]
    details = error.get("errors") or [{}]
    if not error.get("message") or not {"message", "domain", "reason"} <= set(details[0]):
        return [f"an error needs a message and errors with message, domain, reason: {body!r}"]
    return []


def load(api: str = "compute") -> Discovery | None:
    """Return Google's document of an API, or None where google-api-python-client is not installed."""
    found = importlib.util.find_spec("googleapiclient")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = Path(place) / DOCUMENTS / f"{api}.v1.json"
        if path.exists():
            return Discovery(json.loads(path.read_text()))
    return None


def check_log(path: str | Path) -> list[str]:
    """Return what is wrong with the calls in a request log, one line each; [] is a clean log.

    Each call of an API in APIS has to be a method of its discovery document, with the parameters, request and
    response that it declares: nothing unknown, nothing output-only or missing in a request.
    Raises RuntimeError where the document is not installed.
    """
    documents = {api: load(api) for api in APIS}
    if None in documents.values():
        raise RuntimeError(
            "wanted Google's discovery document, found none: install google-api-python-client"
        )
    problems = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        record = json.loads(line)
        for api, (pattern, root) in APIS.items():
            discovery = documents[api]
            if discovery is not None and pattern.match(record["path"]):
                where = f"{path}:{number}: {record['method']} {record['path']}"
                below = record["path"].removeprefix(root)
                found = _record_problems(discovery, record, below)
                problems += [f"{where}: {problem}" for problem in found]
    return problems


def _record_problems(discovery: Discovery, record: Mapping[str, Any], below: str) -> list[str]:
    found = discovery.match(record["method"], below)
    if found is None:
        return [f"no method of {discovery.api} v1"]
    method, parts = found
    # A document may take several parts of a path as one parameter, "name" or "parent".
    declared = discovery.methods[method].get("parameters", {})
    parameters = {name: value for name, value in parts.items() if name in declared}
    query, body = record["query"], record["request"]
    asked = discovery.request_problems(method, query, body, parameters, strict=True)
    status = record["status"]
    # A connection that a fault closed has no answer.
    answered = discovery.response_problems(method, status, record["response"]) if status else []
    # A request that is refused may be wrong on purpose: then the refusal is what counts.
    requests = [] if record["status"] == 400 else [problem.message for problem in asked]
    return requests + answered
