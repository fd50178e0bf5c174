"""The server's own certificate, for a gateway without a TLS front: read anew when its files have changed."""

import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from apim_middleware._config import awaits, check, shown
from apim_middleware.env import SystemClock
from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Clock

log = logging.getLogger("apim_middleware")

File: TypeAlias = str | PathLike[str]

_DAY = 86_400.0
_UNUSABLE = (OSError, TypeError, ValueError)  # TypeError: the password is none


def server_context(
    certificate: File,
    key: File | None = None,
    *,
    password: Callable[[], str] | None = None,
    alpn: Sequence[str] = ("http/1.1",),
    every: float = 1.0,
    clock: Clock | None = None,
) -> ssl.SSLContext:
    """An SSL context for a server, whose certificate is that of the files as they are when a client comes.

    ``certificate`` is a PEM file with the chain, ``key`` one with the private key, unless both are in one.
    ``password`` is asked for when the key is encrypted. ``alpn`` is what the server speaks. The files are looked at
    when a client comes, ``every`` so many seconds at most; connections that are open keep what they have. Files that
    cannot be read, or do not belong together, are told of in the log and change nothing. TLS 1.2 is the oldest spoken.

    Give it to uvicorn as ``ssl_context_factory=lambda config, default: server_context("cert.pem", "key.pem")``.
    Raises ConfigError when the files cannot be read now.
    """
    _check_files(certificate, key, password)
    _check_alpn(alpn)
    check("server_context", "every", every, float)
    if not 0 <= every <= _DAY:
        raise ConfigError("server_context", "every", f"{every} is out of range", f"Give seconds from 0 to {_DAY:g}")
    check("server_context", "clock", clock, Clock | None)
    files = (certificate,) if key is None else (certificate, key)

    def read() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key, password)
        context.set_alpn_protocols(list(alpn))
        return context

    try:
        shelf = _Latest(read, files, every, clock or SystemClock())
    except _UNUSABLE as error:
        cure = "Give a PEM file with the certificate chain, and one with its key"
        raise ConfigError("server_context", "certificate", f"cannot be read: {_said(error)}", cure) from error
    front = read()
    front.sni_callback = shelf.choose
    return front


def _check_files(certificate: File, key: File | None, password: Callable[[], str] | None) -> None:
    check("server_context", "certificate", certificate, File)
    check("server_context", "key", key, File | None)
    cure = "Give a function that returns the password"
    check("server_context", "password", password, Callable[[], str] | None, cure=cure, secret=True)
    if awaits(password):
        raise ConfigError("server_context", "password", "is async", "Give a plain function")


def _check_alpn(alpn: Sequence[str]) -> None:
    check("server_context", "alpn", alpn, Sequence[str], cure='Write alpn=("http/1.1",)')
    for name in alpn:
        if not name.isascii() or not 1 <= len(name) <= 255:  # RFC 7301 §3.1
            raise ConfigError("server_context", "alpn", f"{shown(name)} is no protocol", 'Write alpn=("http/1.1",)')


class _Latest:
    """The context of the files as they are now."""

    def __init__(self, read: Callable[[], ssl.SSLContext], files: Sequence[File], every: float, clock: Clock) -> None:
        self._read, self._files = read, files
        self._every, self._now = every, clock.monotonic
        self._state = self._look()
        self._context = read()
        self._looked = -inf

    def choose(self, wire: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        """Called at the beginning of each handshake, whether or not the client names a server."""
        now = self._now()
        if now - self._looked >= self._every:
            self._looked = now
            self._refresh()
        wire.context = self._context

    def _refresh(self) -> None:
        state = self._look()
        if state is None or state == self._state:
            return
        try:
            self._context = self._read()
        except _UNUSABLE as error:  # half written, perhaps: the next look will tell
            log.error("the changed certificate cannot be used: %s", _said(error))
        else:
            log.info("the certificate was read anew")
        self._state = state

    def _look(self) -> list[tuple[int, int, int]] | None:
        """What tells one state of the files from another; None when one is not there."""
        with suppress(OSError):
            found = [Path(file).stat() for file in self._files]
            return [(each.st_mtime_ns, each.st_size, each.st_ino) for each in found]
        return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
