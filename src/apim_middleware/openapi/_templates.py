"""From the paths of a document, and the servers in front of them, to URL templates."""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from apim_middleware._http.url_templates import UrlTemplate, parsed
from apim_middleware.openapi._places import Place, below, mistake

PARAMETERS = re.compile(r"\{([^{}]*)\}")
"""The parameters of a path, and the variables of a server."""

_HIDDEN = re.compile(r"%(?:2f|5c|7b|7d|3f|23|25|00)", re.IGNORECASE)
_CLEAN = "Write segments of plain text and {parameters}, without dot segments, escaped slashes or wildcards"


def server_path(servers: Any, place: Place) -> str | None:  # noqa: ANN401 - an array of servers, or nothing
    """The path that all these servers have, without a slash at its end; None when there are no servers."""
    if not servers:
        return None
    paths = [_path_of(server, below(place, number)) for number, server in enumerate(servers)]
    if len(set(paths)) > 1:
        problem = f"have different paths, {', '.join(repr(each or '/') for each in dict.fromkeys(paths))}"
        raise mistake(place, problem, 'Say which with server_path="/v1", or server_path="" for none')
    return paths[0]


def _path_of(server: dict[str, Any], place: Place) -> str:
    if "url" not in server:
        raise mistake(place, "has no url", "Give one")
    url = PARAMETERS.sub(lambda found: _value(server, found[1], place), server["url"])
    cure = 'Say what stands in front of the paths with server_path="/v1", or server_path="" for none'
    try:
        split = urlsplit(url)
    except ValueError:
        raise mistake(below(place, "url"), "is no URL", cure) from None
    if split.scheme not in ("http", "https", "ws", "wss", "") or split.query or split.fragment:
        raise mistake(below(place, "url"), f"{url!r} is no base of paths", cure)
    if split.path and not split.path.startswith("/"):
        raise mistake(below(place, "url"), f"{url!r} goes by where the document was found", cure)
    path = _decoded(split.path.removesuffix("/"), below(place, "url"))
    if "{" in path or "*" in path:
        raise mistake(below(place, "url"), f"{url!r} has a path that is no plain text", cure)
    return path


def _value(server: dict[str, Any], name: str, place: Place) -> str:
    variable = server.get("variables", {}).get(name)
    default = variable.get("default") if isinstance(variable, dict) else None
    if not isinstance(default, str):
        raise mistake(below(place, "url"), f"holds {{{name}}}, which has no default", "Give the variable a default")
    return default


def template_of(base: str, path: str, place: Place, *, query: bool = False) -> UrlTemplate:
    """The template of a path behind what stands in front of it. Raises ConfigError."""
    if not path.startswith("/"):
        raise mistake(place, "is a path that does not begin with a slash", _CLEAN)
    if not query and "?" in path:
        raise mistake(place, "is a path with a query", "Put it under x-ms-paths, or declare a parameter in the query")
    plain, mark, asked = path.partition("?")
    if "*" in plain or ":path}" in plain:
        raise mistake(place, "is a path with a wildcard, which OpenAPI does not have", _CLEAN)
    try:
        return parsed(f"{base}{_decoded(plain, place)}{mark}{asked}")
    except ValueError as error:
        raise mistake(place, f"is a path that no request can have: {error}", _CLEAN) from None


def _decoded(path: str, place: Place) -> str:
    if _HIDDEN.search(path):
        raise mistake(place, "hides a slash, a brace or another mark behind a percent-escape", _CLEAN)
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise mistake(place, "holds percent-escapes that are no UTF-8", _CLEAN) from None


def parameters_of(template: UrlTemplate) -> set[str]:
    """The names of the parameters in the path of a template."""
    return set(PARAMETERS.findall(template.text.partition("?")[0]))
