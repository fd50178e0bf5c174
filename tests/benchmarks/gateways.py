"""What a gateway costs: to match and identify a request among ten operations or ten thousand, and to begin and reload.

Beside it the router of Starlette, which goes through its routes one by one.
"""

import gc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from time import process_time
from typing import Any

from harness import Drive, Effort, table, timed
from starlette.routing import Match, Route

from apim_middleware import Api, Gateway, MemoryKeys, Operation, Product, RateLimit, Subscription, by, key_digest
from apim_middleware.exchange import Exchange
from apim_middleware.testing import http_scope

SIZES = (10, 100, 1_000, 10_000)
SMALL = (10, 100)
METHODS = ("GET", "POST", "PUT", "DELETE")
_serial = count()


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """A backend that is never reached."""


def run(effort: Effort) -> None:
    """Measure and print everything."""
    small = effort.rounds < 10
    matching(SMALL if small else SIZES, effort)
    beginning(*((100, 10, 100) if small else (10_000, 1_000, 100_000)))
    print("\nGoals: match and identify <= 5 us, flat from 10 to 10,000 operations; start <= 5 s.")


def matching(sizes: tuple[int, ...], effort: Effort) -> None:
    """Microseconds to find the plan of a request, when there are so many operations."""
    cases = {"match and identify": found_by_gateway, "Starlette's router alone": found_by_starlette}
    rows = []
    for name, make in cases.items():
        times = timed({str(size): make(size) for size in sizes}, effort)
        rows.append([name, *(f"{times[str(size)]:.2f}" for size in sizes)])
    clean = timed({"hygiene": partial(_drive, _cleaned(small_gateway(10)), 10)}, effort)["hygiene"]
    rows.append(["request hygiene, which goes before", *(f"{clean:.2f}" for _ in sizes)])
    table("A request among so many operations: microseconds", ["operations", *(f"{size:,}" for size in sizes)], rows)


def small_gateway(operations: int) -> Gateway:
    """One product, as many APIs of ten operations as it takes."""
    keys = MemoryKeys()
    keys.add(Subscription(id="one", product="all"), primary=key_digest("key"))
    apis = tuple(api(number, 10) for number in range(operations // 10))
    return Gateway(apis=apis, products=(Product("all", apis=("*",)),), keys=keys)


def api(number: int, operations: int, *policies: Any) -> Api:
    """One API."""
    return Api(
        f"api{number}",
        f"/api{number}",
        backend=nothing,
        operations=tuple(
            Operation(METHODS[each % 4], f"/things{each // 8}" + ("/{id}" if each % 8 > 3 else ""))
            for each in range(operations)
        ),
        policies=policies,
    )


def found_by_gateway(operations: int) -> Drive:
    """Finds the plan of a request, and cleans it before, which is taken off."""
    gateway = small_gateway(operations)
    clean = _cleaned(gateway)
    for entry in gateway.compiled.entries:  # plans are compiled once
        for edition in entry.editions():
            for endpoint in edition.endpoints:
                endpoint.approach.plan("all")

    def choose(path: str) -> None:
        gateway.compiled._choose(clean(path))

    async def drive(times: int) -> float:
        before = await _drive(clean, operations, times)
        both = await _drive(choose, operations, times)
        return max(both - (before + await _drive(clean, operations, times)) / 2, 0.0)

    return drive


def _cleaned(gateway: Gateway) -> Callable[[str], Exchange]:
    scrub = gateway.compiled._scrub

    def clean(path: str) -> Exchange:
        exchange = Exchange(http_scope("GET", path, headers=[(b"ocp-apim-subscription-key", b"key")]))
        exchange.scrubbed(*scrub(exchange.scope))
        return exchange

    return clean


def _paths(operations: int, times: int) -> Iterator[str]:
    """Of operations all over the gateway, each with an id of its own; made when it is asked for, as servers do."""
    for number in islice(_serial, times):
        yield f"/api{number * 7919 % (operations // 10)}/things0/{number}"


async def _drive(take: Callable[[str], object], operations: int, times: int) -> float:
    start = process_time()
    for path in _paths(operations, times):
        take(path)
    return process_time() - start


def found_by_starlette(operations: int) -> Drive:
    """Goes through the routes as the router does, until one fits."""
    routes = [
        Route(f"{each.path}{operation.template}", _endpoint, methods=[operation.method])
        for each in small_gateway(operations).apis
        for operation in each.operations
    ]

    def route(path: str) -> None:
        scope = http_scope("GET", path)
        next(route for route in routes if route.matches(scope)[0] is Match.FULL)

    async def drive(times: int) -> float:
        return await _drive(route, operations, times)

    return drive


async def _endpoint(request: Any) -> Any:
    return None


def beginning(operations: int, products: int, subscriptions: int) -> None:
    """Seconds and memory to begin, and to begin anew."""
    rows = []
    keys, took, size = _measured(partial(_subscribed, subscriptions, products))
    rows.append([f"{subscriptions:,} subscriptions in memory", f"{took:.2f}", f"{size / 2**20:.0f}"])
    make = partial(_large, keys, operations, products)
    gateway, took, size = _measured(make)
    rows.append([f"{operations:,} operations, {products:,} products", f"{took:.2f}", f"{size / 2**20:.0f}"])
    _, took, size = _measured(make)
    rows.append(["the same beside it, for a reload", f"{took:.2f}", f"{size / 2**20:.0f}"])
    plans, took, size = _measured(partial(_compiled, gateway))
    rows.append([f"{len(plans):,} plans of three policies", f"{took:.2f}", f"{size / 2**20:.1f}"])
    table("To begin: seconds of CPU, MiB of resident memory", ["what", "s", "MiB"], rows)


def _subscribed(subscriptions: int, products: int) -> MemoryKeys:
    keys = MemoryKeys()
    for number in range(subscriptions):
        subscription = Subscription(id=f"s{number}", product=f"p{number % products}")
        keys.add(subscription, primary=key_digest(f"key{number}"))
    return keys


def _large(keys: MemoryKeys, operations: int, products: int) -> Gateway:
    apis = max(1, operations // 100)
    limit = RateLimit(calls=100, per=60, by=by.subscription)
    return Gateway(
        apis=tuple(api(number, operations // apis, limit) for number in range(apis)),
        products=tuple(
            Product(f"p{each}", apis=tuple({f"api{(each + other) % apis}" for other in range(10)}), policies=(limit,))
            for each in range(products)
        ),
        policies=(RateLimit(calls=1_000, per=60),),
        keys=keys,
    )


def _compiled(gateway: Gateway) -> list[Any]:
    """A thousand plans: operations without policies of their own share that of their API and a product."""
    contexts = [
        (edition.endpoints[0], product)
        for entry in gateway.compiled.entries
        for edition in entry.editions()
        for product in sorted(entry.products)
    ]
    return [endpoint.approach.plan(product) for endpoint, product in contexts[:1_000]]


def _measured(make: Callable[[], Any]) -> tuple[Any, float, int]:
    gc.collect()
    before, start = _resident(), process_time()
    made = make()
    return made, process_time() - start, _resident() - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
