"""A gateway in front of three servers, any of which can be stopped or killed without anybody missing it.

    python examples/pool.py [--port 8080]

It prints the lines to try. ``/members`` says how each server is doing.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from apim_middleware import CircuitBreaker, HealthCheck, Hedge, Members, Pool, Proxy, Retry, Stack, Timeout
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.types import ASGIApp


def server() -> ASGIApp:
    """One of the servers: it says which process it is, and whether it is well."""

    async def hello(request: Request) -> Response:
        return JSONResponse({"process": os.getpid()})

    async def health(request: Request) -> Response:
        return Response(status_code=204)

    return Starlette(routes=[Route("/healthz", health), Route("/{path:path}", hello, methods=["GET", "POST"])])


def gateway(members: Members) -> ASGIApp:
    """A proxy to all of them, a word on how they are doing, and an end to all waiting."""
    proxy = Proxy(
        Pool(
            members,
            balance="least-connections",
            health=HealthCheck(path="/healthz", every=1, timeout=0.5, up=1, down=2),
            breaker=CircuitBreaker(failures=3, per=10, open_for=2),
            slow_start=5,
        ),
        retry=Retry(attempts=3, per_try=2),
        hedge=Hedge(after=0.25),
        connect_timeout=1,
    )

    async def standing(request: Request) -> Response:
        return JSONResponse([each._asdict() for each in proxy.standing()])

    async def drain(request: Request) -> Response:
        members.drain(request.query_params["url"])
        return await standing(request)

    routes = [Route("/members", standing), Route("/drain", drain, methods=["POST"]), Mount("/", app=proxy)]
    return Stack(Timeout(seconds=10))(Starlette(routes=routes, lifespan=proxy.lifespan))


def what_to_try(gateway: str, processes: list[int], urls: list[str]) -> str:
    """The lines, each with what it shows."""
    first, second, _ = processes
    return f"""
# each server has its turn
for i in 1 2 3 4 5 6; do curl -s {gateway}/; echo; done

# one is killed, another stopped: all requests are answered all the same
kill -9 {first}; kill -STOP {second}
for i in 1 2 3 4 5 6; do curl -s {gateway}/; echo; done

# how they are doing; a moment later, and again when the second goes on
curl -s {gateway}/members
kill -CONT {second}

# nothing new goes to the last, and what it does comes to its end
curl -s -X POST '{gateway}/drain?url={urls[-1]}'
"""


@contextlib.contextmanager
def servers(ports: list[int]) -> Iterator[list[int]]:
    """A process for each of these ports, as long as the gateway runs; their process ids."""
    with contextlib.ExitStack() as running:
        processes = []
        for port in ports:
            process = subprocess.Popen([sys.executable, __file__, "--serve", str(port)])
            running.enter_context(process)
            running.callback(process.kill)
            processes.append(process.pid)
        for port in ports:
            wait_for(port)
        yield processes


def wait_for(port: int) -> None:
    """Return when somebody listens there."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


def main(port: int, ports: list[int]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the servers end as well
    urls = [f"http://127.0.0.1:{each}" for each in ports]
    with servers(ports) as processes:
        print(what_to_try(f"http://127.0.0.1:{port}", processes, urls), flush=True)
        uvicorn.run(gateway(Members(*urls)), port=port, log_level="warning", **uvicorn_options())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="where the gateway listens")
    parser.add_argument("--ports", type=int, nargs=3, default=[8081, 8082, 8083], help="where the servers listen")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvicorn.run(server(), port=options.serve, log_level="warning")
    else:
        main(options.port, options.ports)
