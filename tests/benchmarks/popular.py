"""The job of the seven-policy stack as a FastAPI app does it today: the usual libraries, used as their docs say."""

import ipaddress
import secrets
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.decorator import cache
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace import TracerProvider
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from visit import AUDIENCE, ISSUER, credentials


class AdmitMiddleware(BaseHTTPMiddleware):
    """Only known networks and API keys come in."""

    def __init__(self, app: FastAPI, networks: list[str], api_keys: list[str]) -> None:
        super().__init__(app)
        self.networks = [ipaddress.ip_network(network) for network in networks]
        self.api_keys = api_keys

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        address = ipaddress.ip_address(request.client.host)
        if not any(address in network for network in self.networks):
            return JSONResponse({"detail": "Forbidden"}, status_code=403)
        key = request.headers.get("Ocp-Apim-Subscription-Key", "")
        if not any(secrets.compare_digest(key, each) for each in self.api_keys):
            return JSONResponse({"detail": "Access denied"}, status_code=401)
        return await call_next(request)


class HeadersMiddleware(BaseHTTPMiddleware):
    """Takes a header from the request, puts one on it and one on the response."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        headers = [pair for pair in request.scope["headers"] if pair[0] != b"x-internal-token"]
        request.scope["headers"] = [*headers, (b"x-source", b"gateway")]
        response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


async def claims(given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> dict:
    """The claims of a valid bearer token."""
    try:
        return jwt.decode(
            given.credentials, credentials().public_key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "Invalid token", headers={"WWW-Authenticate": "Bearer"}) from error


def app(tracer_provider: TracerProvider | None = None) -> FastAPI:
    """The app with everything around its one endpoint."""
    FastAPICache.reset()
    FastAPICache.init(InMemoryBackend(), prefix="orders")
    limiter = Limiter(key_func=get_remote_address, headers_enabled=True)
    made = FastAPI()
    made.state.limiter = limiter
    made.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
    made.add_middleware(HeadersMiddleware)
    made.add_middleware(AdmitMiddleware, networks=["127.0.0.0/8", "::1/128"], api_keys=[credentials().api_key])

    @made.get("/orders/{number}", dependencies=[Depends(claims)])
    @limiter.limit("1000000000/minute")
    @cache(expire=60)
    async def order(request: Request, response: Response, number: int) -> dict:
        return {"id": number, "state": "shipped"}

    FastAPIInstrumentor.instrument_app(made, tracer_provider=tracer_provider)
    return made
