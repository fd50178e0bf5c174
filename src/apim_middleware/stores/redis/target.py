"""Where a URL leads: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py writes them."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

_PORT = 6379
_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server, who we are there, and which of its databases is ours."""

    host: str = "localhost"
    port: int = _PORT
    path: str = ""
    """Of a Unix socket; host and port then mean nothing."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Where it is, without names and passwords."""
        if self.path:
            return f"unix://{self.path}"
        return f"redis{'s' if self.tls else ''}://{self.host}:{self.port}/{self.database}"

    def greeting(self, password: str) -> list[tuple[bytes, ...]]:
        """The commands that each connection begins with; ``password`` is what it is by now."""
        commands: list[tuple[bytes, ...]] = []
        if password:
            names = (self.username.encode(),) if self.username else ()
            commands.append((b"AUTH", *names, password.encode("utf-8", "surrogateescape")))
        if self.database:
            commands.append((b"SELECT", b"%d" % self.database))
        return commands


def target_of(url: str) -> Target:
    """Read a URL. Raises ValueError, without the URL in it, for it may hold a password."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        database = int(options.pop("db", "") or (parts.path.strip("/") if parts.scheme != "unix" else "") or 0)
        host, port = parts.hostname or "localhost", parts.port or _PORT
    except ValueError:
        raise ValueError("cannot be read") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("has another scheme")
    tls = _tls(options) if parts.scheme == "rediss" else None
    if options:
        raise ValueError(f"has options that are not known: {', '.join(sorted(options))}")
    path = unquote(parts.path) if parts.scheme == "unix" else ""
    return Target(
        host=host, port=port, path=path, username=username, password=password, database=database, tls=tls
    )  # fmt: skip


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    """Certificates are checked unless ``ssl_cert_reqs=none``, and names unless ``ssl_check_hostname=false``."""
    files: Mapping[str, str] = {name: options.pop(name) for name in _FILES & options.keys()}
    context = ssl.create_default_context(cafile=files.get("ssl_ca_certs"))
    if "ssl_certfile" in files:
        context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    checks = options.pop("ssl_cert_reqs", "required") != "none"
    context.check_hostname = checks and options.pop("ssl_check_hostname", "true").lower() == "true"
    context.verify_mode = ssl.CERT_REQUIRED if checks else ssl.CERT_NONE
    return context
