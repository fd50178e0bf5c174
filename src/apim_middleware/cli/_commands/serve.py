"""``apim serve``."""

import os
import sys
from contextlib import nullcontext
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from apim_middleware.cli import _serving
from apim_middleware.cli._apart import kept_apart
from apim_middleware.cli._draining import drain_passed_on
from apim_middleware.cli._options import Names, Target
from apim_middleware.cli._speaking import told, warn
from apim_middleware.cli._standing import has_access_log, longest_grace
from apim_middleware.cli._targets import is_file, runnable
from apim_middleware.errors import ConfigError
from apim_middleware.serving._notice import survive_drain
from apim_middleware.serving.certificates import server_context
from apim_middleware.serving.options import dates_what_has_none, uvicorn_options

_APP = "apim_middleware.cli._serving:app"


class _How(NamedTuple):
    """How something is served, on whichever server."""

    host: str
    port: int
    workers: int
    restart: bool
    """Whether the server starts anew when code changes."""

    certificate: Path | None
    key: Path | None
    stop_after: int
    grace: float
    """Seconds between the signal to end and the end."""

    logs: bool
    """Whether the server writes lines of its own about requests, where it would."""


def serve(
    target: Target,
    *,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="the port to listen on")] = 8080,
    server: Annotated[Literal["uvicorn", "granian"], typer.Option(help="the ASGI server")] = "uvicorn",
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    reload: Annotated[bool, typer.Option(help="take changes of the file or the code over")] = False,
    certificate: Annotated[Path | None, typer.Option(help="PEM file of the certificate, for TLS")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key")] = None,
    stop_after: Annotated[int, typer.Option(min=1, help="seconds requests have to end when the server is to")] = 30,
    names: Names = "",
) -> None:
    """Serve a gateway, or any ASGI app."""
    survive_drain()
    with told():
        _check_tls(certificate, key)
        served = runnable(target, names)
    for each in kept_apart(served, workers):
        warn(f"warning: {each}")
    by_file = reload and is_file(target)
    os.environ[_serving.TARGET], os.environ[_serving.NAMES] = target, names
    os.environ[_serving.SERVER] = server
    os.environ[_serving.RELOAD] = "1" if by_file else ""
    run = _with_uvicorn if server == "uvicorn" else _with_granian
    grace, logs = longest_grace(served), not has_access_log(served)
    run(_How(host, port, workers, reload and not by_file, certificate, key, stop_after, grace, logs))


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    """Refuse mistakes here and now, and not in each worker."""
    if (certificate is None) != (key is None):
        raise ConfigError("apim", "certificate", "and key do not go together", "Give both, or neither")
    if certificate is not None:
        server_context(certificate, key)


def _with_uvicorn(how: _How) -> None:
    try:
        import uvicorn
    except ModuleNotFoundError:
        sys.exit("uvicorn is not installed: pip install 'apim-middleware[cli]'")

    tls: dict[str, Any] = {}
    if how.certificate is not None and how.key is not None:
        os.environ[_serving.CERTIFICATE], os.environ[_serving.KEY] = str(how.certificate), str(how.key)
        tls["ssl_context_factory"] = _serving.tls
    with drain_passed_on() if how.workers > 1 or how.restart else nullcontext():
        uvicorn.run(
            _APP,
            factory=True,
            host=how.host,
            port=how.port,
            workers=how.workers,
            reload=how.restart,
            date_header=dates_what_has_none(),
            access_log=how.logs,
            **uvicorn_options(timeout_graceful_shutdown=how.stop_after),
            **tls,
        )


def _with_granian(how: _How) -> None:
    try:
        from granian.constants import Interfaces
        from granian.log import LOGGING_CONFIG
        from granian.server import Server
    except ModuleNotFoundError:
        sys.exit("granian is not installed: pip install 'apim-middleware[granian]'")
    said: dict[str, Any] = LOGGING_CONFIG
    handlers = {name: {**each, "stream": "ext://sys.stderr"} for name, each in said["handlers"].items()}
    server = Server(
        _APP,
        factory=True,
        address=how.host,
        port=how.port,
        interface=Interfaces.ASGI,
        workers=how.workers,
        reload=how.restart,
        ssl_cert=how.certificate,
        ssl_key=how.key,
        workers_kill_timeout=ceil(how.grace) + how.stop_after,
        respawn_failed_workers=True,  # else all end with one
        log_dictconfig={"handlers": handlers},  # as uvicorn does, so that stdout is left to access logs
    )
    with told(), drain_passed_on():
        try:
            server.serve()
        except (RuntimeError, ValueError) as error:  # what it says of an address, before there are workers
            problem = f"{how.host}: cannot be listened on: {str(error).partition(chr(10))[0]}"
            raise ConfigError("apim", "host", problem, "Give an IP address of this machine") from None
