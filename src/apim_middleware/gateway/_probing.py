"""A request that an operation is for, to ask what takes it in another gateway."""

from typing import NamedTuple

from apim_middleware._http.url_templates import Mixed, UrlTemplate
from apim_middleware.model import ANY, Definition, Operation
from apim_middleware.types import RawHeaders

_SOMETHING = "~"
"""What stands for parameters, and for any method: hardly the text of another operation."""

_REST = f"/{_SOMETHING}" * 9
"""What stands for any number of segments: more than other operations have, which take what has fewer."""


class Probe(NamedTuple):
    """A request as matching sees it, to ask where it would go."""

    method: str
    path: str
    query: bytes
    headers: RawHeaders


def probe_of(definition: Definition, operation: Operation, host: str, *, plain: bool = False) -> Probe:
    """A request for an operation of an API at one of its hosts; ``plain`` names no version."""
    api, version = definition.api, definition.version
    headers: RawHeaders = [(b"host", host.replace("*", _SOMETHING, 1).encode())] if host else []
    path, asked = api.path.removesuffix("/"), [_asked(*each) for each in operation.url_template.query]
    if version is not None and api.versions is not None and not plain:
        if api.versions.by == "path":
            path += f"/{version.name}"
        elif api.versions.by == "header":
            headers.append((api.versions.parameter.lower().encode(), version.name.encode()))
        else:
            asked.append(f"{api.versions.parameter}={version.name}")
    path += "" if definition.current else f";rev={definition.revision}"
    method = _SOMETHING if operation.method == ANY else operation.method
    return Probe(method, path + _path(operation.url_template), "&".join(asked).encode(), headers)


def _path(template: UrlTemplate) -> str:
    segments = [_SOMETHING.join(each.texts) if isinstance(each, Mixed) else each for each in template.segments]
    texts = [_SOMETHING if each is None else each for each in segments]
    return "".join(f"/{each}" for each in texts) + (_REST if template.rest is not None else "") or "/"


def _asked(name: str, text: str | None, called: str) -> str:
    return f"{name}={_SOMETHING if text is None else text}"
