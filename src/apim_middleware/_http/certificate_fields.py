"""Client certificates in the headers that proxies write: read into DER, in each of the forms that are about."""

import base64
import binascii
import re
import ssl
from collections.abc import Sequence
from urllib.parse import unquote

from apim_middleware._http.fields import parse_list

FORWARDED = b"x-forwarded-client-cert"
"""Envoy's field: elements of pairs, the last by the proxy in front of us."""

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_PAIR = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,"]*)')


def from_header(name: bytes, value: bytes) -> list[bytes]:
    """The certificate, and behind it others that came with it; ValueError when there is none that can be read.

    ``X-Forwarded-Client-Cert`` is Envoy's; elsewhere stands a byte sequence as in ``Client-Cert`` (RFC 9440 §2.1), PEM
    text (with its line breaks as blanks, or percent-encoded) or DER in base64.
    """
    text = value.decode("ascii").strip()
    if name == FORWARDED:
        return _from_envoy(text)
    if text.startswith(":"):
        return [_item(text)]
    if "BEGIN" in text:
        return from_pem(unquote(text) if "%" in text else text)
    return [_base64(unquote(text) if "%" in text else text)]


def from_chain(value: bytes) -> list[bytes]:
    """The certificates of ``Client-Cert-Chain`` (RFC 9440 §2.2)."""
    return [_bytes(bare) for bare, _ in parse_list(value.decode("ascii"))]


def from_pem(text: str) -> list[bytes]:
    """Every certificate of a PEM text, in order; ValueError when there is none."""
    found = [_base64("".join(body.split())) for body in _PEM.findall(text)]
    if not found:
        raise ValueError("no certificate in PEM")
    return found


def from_tls(chain: Sequence[object]) -> list[bytes]:
    """The chain that the TLS extension of ASGI tells of, the client's certificate first."""
    return [ssl.PEM_cert_to_DER_cert(each.strip()) for each in chain if isinstance(each, str)]


def _from_envoy(text: str) -> list[bytes]:
    """The ``Cert`` and ``Chain`` of the last element."""
    pairs: dict[str, str] = {}
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise ValueError("not the pairs of X-Forwarded-Client-Cert")
        pairs[pair[1].lower()] = pair[2].strip('"')
        at = pair.end()
        if text[at : at + 1] == ",":
            pairs.clear()
        elif text[at : at + 1] not in ("", ";"):
            raise ValueError("not the pairs of X-Forwarded-Client-Cert")
        at += 1
    if "chain" in pairs:
        return from_pem(unquote(pairs["chain"]))
    return from_pem(unquote(pairs.get("cert", "")))


def _item(text: str) -> bytes:
    items = parse_list(text)
    if len(items) != 1:
        raise ValueError("several certificates where one is meant")
    return _bytes(items[0][0])


def _bytes(bare: object) -> bytes:
    if not isinstance(bare, bytes):
        raise ValueError("a certificate is a byte sequence")
    return bare


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("a certificate that is not base64") from error
