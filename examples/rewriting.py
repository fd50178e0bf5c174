"""An old app behind a new face: other paths, other parameters, other headers.

apim serve examples.rewriting:app --port 8000

    curl -i http://127.0.0.1:8000/v2/users/7                       # the app's /people.php?id=7
    curl -i "http://127.0.0.1:8000/v2/users/7?id=1&debug=1&lang=da" # id and debug are not the caller's to choose
    curl -i http://127.0.0.1:8000/v2/health                        # answered by something else
    curl -i http://127.0.0.1:8000/people.php?id=7                  # the old face is gone
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from apim_middleware import (
    Choose,
    RemoveHeader,
    RemoveQuery,
    RewritePath,
    SetHeader,
    SetQuery,
    Stack,
    When,
    by,
    conditions,
)


async def person(request: Request) -> JSONResponse:
    """What cannot be changed any more."""
    answer = {"query": request.url.query, "client": request.headers.get("x-client")}
    return JSONResponse(answer, headers={"X-Powered-By": "PHP/5.3", "Cache-Control": "public"})


old = Starlette(routes=[Route("/people.php", person)])


def elsewhere(app: ASGIApp) -> ASGIApp:
    """A layer that leaves the app out."""
    return PlainTextResponse("fine")


def gone(app: ASGIApp) -> ASGIApp:
    """Another one."""
    return PlainTextResponse("Please use /v2.", status_code=410)


app = Stack(
    SetHeader(name="x-content-type-options", value="nosniff", on="response"),
    RemoveHeader(name="x-powered-by", on="response"),
    When(conditions.method("GET"), SetHeader(name="cache-control", value="max-age=60", on="response")),
    Choose(
        (conditions.path("/v2/health"), elsewhere),
        (conditions.not_(conditions.path("/v2/*")), gone),
        otherwise=Stack(
            RemoveQuery(name="debug"),
            SetQuery(name="lang", value="en", exists="skip"),
            RewritePath(match="/v2/users/{id}", to="/people.php?id={id}"),
            SetHeader(name="x-client", value=by.client, on="request"),
        ),
    ),
)(old)
