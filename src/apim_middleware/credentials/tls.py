"""A client certificate for upstreams that is read again when its files have changed."""

import logging
import math
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from apim_middleware._config import check
from apim_middleware.errors import ConfigError

log = logging.getLogger("apim_middleware.credentials")


class ClientCertificateContext(ssl.SSLContext):
    """How an upstream is spoken to over TLS with a certificate of our own: see ``client_certificate``."""

    _renew: Callable[[], None] | None = None

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - as ssl has it
        """Every new connection of an event loop begins here."""
        if self._renew is not None:
            self._renew()
        return super().wrap_bio(*args, **options)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401 - as ssl has it
        """Begin a connection of a blocking socket, once the certificate was looked after."""
        if self._renew is not None:
            self._renew()
        return super().wrap_socket(*args, **options)

    def renewed_by(self, renew: Callable[[], None]) -> Self:
        """Look after the certificate before every new connection."""
        self._renew = renew
        return self


def client_certificate(
    certificate: str | Path,
    key: str | Path | None = None,
    *,
    password: str | None = None,
    authorities: str | Path | None = None,
    check_every: float = 60.0,
    monotonic: Callable[[], float] = time.monotonic,
) -> ClientCertificateContext:
    """The TLS of an upstream that wants to know who calls: ``Proxy(..., verify=client_certificate("gateway.pem"))``.

    ``certificate`` is a PEM file with the certificate and those it is vouched for by, ``key`` the one with its private
    key (None when it is in the same file), ``password`` what that is encrypted with. ``authorities`` is a PEM file of
    whom to believe about the upstream; None for those of the system. The files are looked at every ``check_every``
    seconds, when a connection is made, and read again when they have changed: new connections show the new
    certificate. Files that do not fit together, as while they are being replaced, change nothing; that is logged.

    ConfigError when they cannot be read now. Azure's ``authentication-certificate``.
    """
    check("client_certificate", "check_every", check_every, float)
    if not 0 < check_every < math.inf:
        raise _mistake("check_every", f"{check_every} is no time", "Give seconds above 0")
    files = _Files(Path(certificate), None if key is None else Path(key), password)
    context = ClientCertificateContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        watch = _Watch(context, files, check_every, monotonic)  # before they are read, or a change meanwhile is missed
        files.check()
        files.load_into(context)
    except (OSError, ValueError) as error:
        cure = "Give PEM files of a certificate and of its private key"
        raise _mistake("certificate", f"it cannot be used: {_reason(error)}", cure) from None
    try:
        context.load_verify_locations(authorities) if authorities is not None else context.load_default_certs()
    except OSError as error:
        raise _mistake("authorities", f"cannot be read: {_reason(error)}", "Give a PEM file of certificates") from None
    return context.renewed_by(watch)


class _Files:
    """A certificate and its key, as they stand in files."""

    def __init__(self, certificate: Path, key: Path | None, password: str | None) -> None:
        self.certificate, self._key, self._password = certificate, key, password

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """By what they are known to be the same."""
        found = [path.stat() for path in (self.certificate, self._key) if path is not None]
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def check(self) -> None:
        """Try them where nothing depends on them, for a context keeps half of what does not fit."""
        self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def load_into(self, context: ssl.SSLContext) -> None:
        """Show them on new connections of a context. An encrypted key without a password must not ask a terminal."""
        context.load_cert_chain(self.certificate, self._key, password=self._password or "")


class _Watch:
    """Reads the files again when they have changed."""

    def __init__(self, context: ssl.SSLContext, files: _Files, every: float, monotonic: Callable[[], float]) -> None:
        self._context, self._files = context, files
        self._every, self._now = every, monotonic
        self._stamp = files.stamp()
        self._next = monotonic() + every

    def __call__(self) -> None:
        if self._now() < self._next:
            return
        self._next = self._now() + self._every
        try:
            stamp = self._files.stamp()
            if stamp != self._stamp:
                self._files.check()
                self._files.load_into(self._context)
                self._stamp = stamp
        except (OSError, ValueError) as error:
            log.error("the certificate in %s stays what it was: %s", self._files.certificate, _reason(error))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "no certificate and key that belong together"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _mistake(field: str, problem: str, cure: str) -> ConfigError:
    return ConfigError("client_certificate", field, problem, cure)
