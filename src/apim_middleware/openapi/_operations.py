"""What policies ask and answer, written into one operation of a document."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apim_middleware._http.statuses import phrase
from apim_middleware.documentation import Answer, Asked, Documentation, Scheme
from apim_middleware.errors import ConfigError
from apim_middleware.openapi._checking import resolve
from apim_middleware.openapi._components import Components

_HEADERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    name.lower(): (name, description, schema)
    for name, description, schema in (
        ("RateLimit", "How much is left of each limit, and for how long.", {"type": "string"}),
        ("RateLimit-Policy", "The limits that apply (draft-ietf-httpapi-ratelimit-headers).", {"type": "string"}),
        ("Retry-After", "Seconds until it is worth trying again (RFC 9110 §10.2.3).", {"type": "integer"}),
        ("WWW-Authenticate", "What to bring (RFC 9110 §11.6.1).", {"type": "string"}),
        ("Cache-Status", "What the response cache did (RFC 9211).", {"type": "string"}),
        ("Age", "Seconds since a stored response was made (RFC 9111 §5.1).", {"type": "integer"}),
        ("ETag", "The tag of this representation (RFC 9110 §8.8.3).", {"type": "string"}),
        ("Vary", "The request fields the response depends on (RFC 9110 §12.5.5).", {"type": "string"}),
        ("Location", "Where to go (RFC 9110 §10.2.2).", {"type": "string", "format": "uri-reference"}),
        ("Content-Encoding", "How the body is encoded (RFC 9110 §8.4).", {"type": "string"}),
        ("Idempotent-Replayed", "Whether this is the kept response of an earlier request.", {"const": "true"}),
        ("Accept-Signature", "What signatures must cover (RFC 9421 §5.1).", {"type": "string"}),
        ("Want-Content-Digest", "Digests that are understood (RFC 9530 §4).", {"type": "string"}),
        ("Deprecation", "Since when, or from when, it is deprecated (RFC 9745).", {"type": "string"}),
        ("Sunset", "When it is expected to end (RFC 8594).", {"type": "string"}),
        ("Link", "What to read, or to use instead (RFC 8288).", {"type": "string"}),
        ("Allow", "The methods there are (RFC 9110 §10.2.1).", {"type": "string"}),
        ("DPoP-Nonce", "What the next proof must hold (RFC 9449 §8).", {"type": "string"}),
    )
}

_PROBLEM = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457).",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "default": "about:blank"},
        "title": {"type": "string", "description": "The phrase of the status."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "description": "A word for machines, which does not change."},
        "detail": {"type": "string", "description": "A sentence for people."},
    },
}
_AZURE = {
    "type": "object",
    "description": "Why a request was refused.",
    "required": ["statusCode", "message"],
    "properties": {"statusCode": {"type": "integer"}, "message": {"type": "string"}},
}


class Writer:
    """Writes documentation into operations; what they have in common becomes components."""

    def __init__(self, components: Components, *, azure: bool = False) -> None:
        """``azure``: refusals are written as Azure API Management does."""
        self._components = components
        self._azure = azure
        self._headers: dict[str, dict[str, str]] = {}
        self._responses: dict[tuple[Answer, ...], dict[str, str]] = {}

    def write(
        self, operation: dict[str, Any], method: str, documentation: Documentation, *, root: Mapping[str, Any]
    ) -> None:
        """Add to an operation what stands in front of it; ``root`` is where its references lead."""
        found = documentation.of(method.upper())
        self._secure(operation, found, root.get("security"))
        self._ask(operation, found.asks, root)
        responses = dict(operation.get("responses") or {})
        told = [each.name for each in found.headers]
        for status in responses if told else ():
            if not status.startswith("x-"):
                responses[status] = self._told(resolved("response", responses[status], root), told)
        for status, answers in _by_status(found.answers).items():
            present = responses.get(status)
            if present is None:
                responses[status] = self._shared(status, tuple(answers))
            else:
                responses[status] = self._answered(resolved("response", present, root), status, answers)
        operation["responses"] = responses

    def scheme(self, scheme: Scheme) -> str:
        """What a security scheme is called in this document."""
        return self._components.put("securitySchemes", scheme.name, dict(scheme.definition))

    def _secure(self, operation: dict[str, Any], found: Documentation, everywhere: Any) -> None:  # noqa: ANN401
        if found.security == ((),):
            return
        own = operation.get("security", everywhere) or [{}]
        asked = [{self.scheme(each): list(each.scopes) for each in way} for way in found.security]
        both = [{**ours, **theirs} for ours in asked for theirs in own]
        operation["security"] = [each for number, each in enumerate(both) if each not in both[:number]]

    def _ask(self, operation: dict[str, Any], asks: Iterable[Asked], root: Mapping[str, Any]) -> None:
        parameters = list(operation.get("parameters", ()))
        declared = [resolved("parameter", each, root) for each in parameters]
        known = {each["name"].lower() for each in declared if _in_header(each)}
        for each in asks:
            if each.name.lower() not in known:
                schema = {"type": "string", **({"enum": list(each.values)} if each.values else {})}
                required = {"required": True} if each.required else {}
                parameters.append({"name": each.name, "in": "header", **required, "schema": schema})
                known.add(each.name.lower())
        if parameters:
            operation["parameters"] = parameters

    def _shared(self, status: str, answers: tuple[Answer, ...]) -> dict[str, str]:
        """A response that many operations have, written once."""
        found = self._responses.get(answers)
        if found is None:
            name = self._components.put("responses", status, self._answered({}, status, answers))
            found = self._responses[answers] = {"$ref": f"#/components/responses/{name}"}
        return found

    def _told(self, response: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """A response with these header fields besides its own."""
        headers = dict(response.get("headers", {}))
        known = {name.lower() for name in headers}
        for name in names:
            if name.lower() not in known:
                headers[_HEADERS.get(name.lower(), (name,))[0]] = self._header(name)
                known.add(name.lower())
        return {**response, "headers": headers} if headers else response

    def _header(self, name: str) -> dict[str, str]:
        found = self._headers.get(name.lower())
        if found is None:
            written, description, schema = _HEADERS.get(name.lower(), (name, "", {"type": "string"}))
            definition = {**({"description": description} if description else {}), "schema": schema}
            called = self._components.put("headers", written, definition)
            found = self._headers[name.lower()] = {"$ref": f"#/components/headers/{called}"}
        return found

    def _answered(self, response: dict[str, Any], status: str, answers: Sequence[Answer]) -> dict[str, Any]:
        """A response of the app, or none, with what policies answer with the same status."""
        codes = list(dict.fromkeys(code for each in answers for code in each.codes))
        words = _described(int(status), codes)
        described = response.get("description", "")
        if codes or not described:
            response = {**response, "description": f"{described}\n\n{words}" if described else words}
        if codes:
            response["content"] = self._content(response.get("content", {}), codes)
        return self._told(response, [name for each in answers for name in each.headers])

    def _content(self, content: dict[str, Any], codes: list[str]) -> dict[str, Any]:
        kind = "application/json" if self._azure else "application/problem+json"
        schema = self._refusal(codes)
        theirs = content.get(kind, {}).get("schema")
        if theirs is not None and theirs != schema:
            schema = {"anyOf": [theirs, schema]}
        return {**content, kind: {**content.get(kind, {}), "schema": schema}}

    def _refusal(self, codes: list[str]) -> dict[str, Any]:
        if self._azure:
            return {"$ref": f"#/components/schemas/{self._components.put('schemas', 'Refusal', _AZURE)}"}
        name = self._components.put("schemas", "Problem", _PROBLEM)
        return {"allOf": [{"$ref": f"#/components/schemas/{name}"}, {"properties": {"code": {"enum": codes}}}]}


def _by_status(answers: Iterable[Answer]) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for each in sorted(answers, key=lambda answer: answer.status):
        found.setdefault(str(each.status), []).append(each)
    return found


def _described(status: int, codes: list[str]) -> str:
    try:
        name = phrase(status)
    except ValueError:
        name = f"Status {status}"
    return f"{name}: {', '.join(f'`{code}`' for code in codes)}." if codes else f"{name}."


def _in_header(parameter: Mapping[str, Any]) -> bool:
    return parameter.get("in") == "header" and isinstance(parameter.get("name"), str)


def resolved(kind: str, value: Any, root: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - one of this kind
    """A copy of an object, or of what a reference leads to; empty where there is nothing."""
    try:
        found = resolve(root, "#", kind, value)
    except ConfigError:
        return {}
    return dict(found) if isinstance(found, dict) else {}
