"""Refusals as Azure API Management writes them: ``{"statusCode": 401, "message": "..."}``."""

import json

from apim_middleware._http.headers import get
from apim_middleware.errors import Refusal
from apim_middleware.policies.limits import OUT_OF_BANDWIDTH
from apim_middleware.types import RawHeaders

_MESSAGES = {
    "operation-not-found": "Resource not found",
    "subscription-key-missing": "Access denied due to missing subscription key. Make sure to include subscription key "
    "when making requests to an API.",
    "subscription-key-invalid": "Access denied due to invalid subscription key. Make sure to provide a valid key for "
    "an active subscription.",
    "policy-failed": "Internal server error",
}


def render_as_azure(refusal: Refusal) -> tuple[RawHeaders, bytes]:
    """The header lines and the body of a refusal; the codes of ours are not in it."""
    body = json.dumps({"statusCode": refusal.status, "message": _message(refusal)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *refusal.headers,
    ]
    return headers, body


def _message(refusal: Refusal) -> str:
    seconds = _retry_after(refusal)
    if refusal.code == "rate-limit-exceeded" and seconds is not None:
        return f"Rate limit is exceeded. Try again in {seconds} seconds."
    if refusal.code == "quota-exceeded" and seconds is not None:
        kind = "bandwidth" if refusal.detail == OUT_OF_BANDWIDTH else "call volume"
        return f"Out of {kind} quota. Quota will be replenished in {_clock(seconds)}."
    return _MESSAGES.get(refusal.code) or refusal.detail or refusal.title


def _retry_after(refusal: Refusal) -> int | None:
    value = get(refusal.headers, b"retry-after")
    return int(value) if value is not None and value.isdigit() else None


def _clock(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}.{clock}" if days else clock
