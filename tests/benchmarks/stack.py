"""Table 2: seven policies in front of an app, against the app alone and against the same job done the usual way."""

import asyncio
import subprocess
import sys
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import apps
from apps import order, recorder
from harness import Case, Effort, Wire, microseconds, table
from layers import Pass
from served import stressed
from visit import credentials, requests, scope

from apim_middleware import IPFilter, Stack, Tracing

PEERS = all(find_spec(name) for name in ("slowapi", "fastapi_cache", "opentelemetry.instrumentation", "pendulum"))
POPULAR = "popular libraries on FastAPI"
POPULAR_RECORDED = "  with their spans recorded"


def run(effort: Effort) -> None:
    """Measure and print everything."""
    asyncio.run(same_job(apps.seven_on_fastapi()))
    if PEERS:
        asyncio.run(same_job(apps.popular()))
    else:
        print("\nThe popular libraries are left out: they are not installed here. See tests/benchmarks/install.")
    in_process(effort)
    shares(effort)
    served(effort)
    address_filter(effort)
    tracing(effort)
    footprint(effort)


async def same_job(app: Any) -> None:
    """Whoever is compared lets the right request in and keeps the wrong ones out."""
    forged = f"Bearer {credentials().token[:-8]}AAAAAAAA"
    visits: list[tuple[dict[str, Any], int]] = [
        (scope(), 200),
        (scope(client="203.0.113.9"), 403),
        (scope(ocp_apim_subscription_key=None), 401),
        (scope(ocp_apim_subscription_key="0" * 32), 401),
        (scope(authorization=None), 401),
        (scope(authorization=forged), 401),
    ]
    for request, status in visits:
        wire = Wire()
        await app(request, wire.receive, wire.send)
        if wire.status != status:
            raise AssertionError(f"{app} answered {wire.status} instead of {status} to {request}")


def in_process(effort: Effort) -> None:
    """What the policies add to a request, without a server around."""
    cases = {
        "bare app": apps.bare,
        "seven policies on it": apps.seven_on_bare,
        "FastAPI": apps.fastapi,
        "seven policies on FastAPI": apps.seven_on_fastapi,
        "  with spans recorded": apps.seven_recorded,
        "  answered from the cache": apps.seven_from_cache,
    }
    if PEERS:
        cases |= {POPULAR: apps.popular, POPULAR_RECORDED: apps.popular_recorded}
    found = microseconds({name: Case(make(), requests()) for name, make in cases.items()}, effort)
    rows = []
    for name, took in found.items():
        base = "bare app" if "bare" in name or name == "seven policies on it" else "FastAPI"
        added = "" if name == base else f"{took - found[base]:+.1f}"
        rows.append([name, f"{took:.1f}", added])
    table("In process: microseconds for each request", ["app", "takes", "added"], rows)
    print("\nGoal: seven policies add <= 10 us to the bare app.")


def shares(effort: Effort) -> None:
    """What each policy adds to those before it."""
    layers = apps.seven().layers
    stacks = {f"{place} {type(layer).__name__}": Stack(*layers[:place]) for place, layer in enumerate(layers, 1)}
    cases = {"bare app": Case(order, requests())}
    cases |= {name: Case(stack(order), requests()) for name, stack in stacks.items()}
    found = microseconds(cases, effort)
    steps = zip(found, found.values(), [0.0, *found.values()], strict=False)
    rows = [[name, f"{took:.1f}", f"{took - before:+.1f}"] for name, took, before in steps]
    table("The stack as it grows: microseconds for each request", ["up to", "takes", "added"], rows)


def served(effort: Effort) -> None:
    """What a server with the policies still does."""
    names = {
        "FastAPI": "fastapi",
        "seven policies on FastAPI": "seven_on_fastapi",
        "  by apim serve": "seven_on_fastapi",
        "  with spans recorded": "seven_recorded",
        "  answered from the cache": "seven_from_cache",
        "bare app": "bare",
        "seven policies on it": "seven_on_bare",
    }
    if PEERS:
        names |= {POPULAR: "popular", POPULAR_RECORDED: "popular_recorded"}
    found = stressed({name: f"apps:{factory}" for name, factory in names.items()}, effort, by_us=["  by apim serve"])
    compared = [found[name] for name in ("FastAPI", POPULAR, POPULAR_RECORDED) if name in found]
    rows = []
    for name, server in found.items():
        times = [f"{server.times(other):.2f}" for other in compared]
        rows.append(
            [name, f"{median(server.rates):,.0f}", *times, f"{median(server.costs):.0f}", f"{server.memory:.0f}"]
        )
    others = ["x FastAPI", "x popular", "x popular recorded"][: len(compared)]
    head = ["app behind uvicorn", "requests/s", *others, "CPU us/request", "MiB"]
    table("Served: 64 connections, one worker", head, rows)
    print("\nGoals: seven policies keep >= 0.85 of FastAPI; >= 12 x the popular libraries with OpenTelemetry at work.")


def address_filter(effort: Effort) -> None:
    """What an address costs, remembered or new, however long the list."""
    networks = tuple(f"{10 + number // 65_536}.{number // 256 % 256}.{number % 256}.0/24" for number in range(100_000))
    strangers = cycle([{"client": (f"100.{number // 256}.{number % 256}.1", 50000)} for number in range(65_536)])
    one = requests()

    def known() -> dict[str, Any]:
        return {**one(), "client": ("100.64.0.1", 50000)}

    def new() -> dict[str, Any]:
        return {**one(), **next(strangers)}

    nothing, few = Stack(Pass(name=b"x"))(order), Stack(IPFilter(deny=networks[:10]))(order)
    many = Stack(IPFilter(deny=networks))(order)
    cases = {
        "a policy that does nothing": Case(nothing, known),
        "10 networks, address seen before": Case(few, known),
        "100,000 networks, address seen before": Case(many, known),
        "a policy that does nothing ": Case(nothing, new),
        "10 networks, new address": Case(few, new),
        "100,000 networks, new address": Case(many, new),
    }
    found = list(microseconds(cases, effort).items())
    rows = []
    for (_, base), *others in (found[:3], found[3:]):
        rows += [[name, f"{took - base:.2f}"] for name, took in others]
    table("IPFilter: microseconds more than a policy that does nothing", ["list and address", "adds"], rows)
    print("\nGoals: seen before <= 0.25 us; new among 100,000 networks <= 2 us.")


def tracing(effort: Effort) -> None:
    """What a span costs, recorded or not, against OpenTelemetry's own middleware."""
    cases = {
        "bare app": order,
        "Tracing, no SDK": Tracing()(order),
        "Tracing, recorded": Tracing(tracer_provider=recorder())(order),
    }
    if PEERS:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        cases["OpenTelemetryMiddleware, no SDK"] = OpenTelemetryMiddleware(order)
        cases["OpenTelemetryMiddleware, recorded"] = OpenTelemetryMiddleware(order, tracer_provider=recorder())
    found = microseconds({name: Case(app, requests()) for name, app in cases.items()}, effort)
    rows = [[name, f"{took - found['bare app']:.1f}"] for name, took in found.items() if name != "bare app"]
    table("Tracing: microseconds more than the bare app", ["middleware", "adds"], rows)
    print("\nGoals: no SDK <= 1.5 us, >= 50 x cheaper; recorded <= 50 us, >= 5 x cheaper.")


IMPORTS = {
    "apim_middleware": "import apim_middleware",
    "  with the seven policies in use": "import apps; apps.seven_on_bare()",
    "starlette": "import starlette.applications",
    "httpx": "import httpx",
    "fastapi": "import fastapi",
}
"""What is measured, and how it gets loaded."""

MEASURE = """
import asyncio, os, pathlib, sys, time
def pages():
    file = pathlib.Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else float("nan")
sys.path.insert(0, sys.argv[2])
memory, start = pages(), time.process_time()
exec(sys.argv[1])
print(1000 * (time.process_time() - start), (pages() - memory) / 2**20)
"""


def footprint(effort: Effort) -> None:
    """What an import costs a fresh interpreter that has asyncio already."""
    imports = IMPORTS | ({"the popular libraries": "import popular"} if PEERS else {})
    found: dict[str, list[list[float]]] = {name: [] for name in imports}
    for _ in range(effort.served_rounds):
        for name, code in imports.items():
            command = [sys.executable, "-c", MEASURE, code, str(Path(__file__).parent)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[name].append([float(each) for each in said.split()])
    rows = [[name, *(f"{median(each):.0f}" for each in zip(*runs, strict=True))] for name, runs in found.items()]
    table("Imported into a fresh interpreter, beyond asyncio", ["what", "ms", "MiB"], rows)
    print("\nGoal: apim_middleware <= 60 ms and <= 6 MiB.")
