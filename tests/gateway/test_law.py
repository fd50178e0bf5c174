"""The law, across scopes: a gateway behaves as the layers of its scopes put in front of the backend one by one."""

import random
from typing import Any

import anyio
import pytest
from tests.laws.random_stacks import Case
from tests.laws.test_fusion import nested, opaque, outcome, quiet

from apim_middleware import _ring
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Fragment, Operation, Product
from apim_middleware.policy import Stack
from apim_middleware.types import ASGIApp

CASES = 800

__all__ = ["quiet"]  # the fixture of the other test: probes fail on purpose


def gateway(case: Case, app: ASGIApp) -> ASGIApp:
    """The probes of a case, cut into scopes at random, with things between them that fuse and that do not."""
    rng = random.Random(str(case.splits))
    cuts = sorted(rng.randrange(len(case.probes) + 1) for _ in range(3))
    parts = [tuple(case.probes[low:high]) for low, high in zip([0, *cuts], [*cuts, None], strict=True)]
    first, second, third, fourth = (decorated(part, rng) for part in parts)
    operation = Operation("*", "/*", policies=fourth)
    return Gateway(
        policies=first,
        products=(Product("free", apis=("*",), policies=second, subscription_required=False),),
        apis=(Api("app", "/", backend=app, policies=third, operations=(operation,)),),
    )


def decorated(part: tuple[Any, ...], rng: random.Random) -> tuple[Any, ...]:
    match rng.randrange(4):
        case 0:
            return (Fragment("part", part),)
        case 1:
            return (opaque, *part)
        case 2:
            return (Stack(*part),)
        case _:
            return part


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_gateway_behaves_as_its_layers_nested(backend: str) -> None:
    async def compare() -> None:
        rng = random.Random(f"{backend} gateway")
        compared = 0
        while compared < CASES:
            case = Case.draw(rng)
            if case.kind == "lifespan":  # a gateway keeps that of its backends
                continue
            expected = await outcome(nested, case)
            assert await outcome(gateway, case) == expected, case
            compared += 1

    anyio.run(compare, backend=backend)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring whose way out forgets the policy nearest the app."""
    real = _ring._WayOut.out_of
    monkeypatch.setattr(_ring._WayOut, "out_of", staticmethod(lambda hooks, **more: real(hooks[:-1], **more)))


@pytest.mark.usefixtures("forgetful")
def test_the_comparison_can_fail() -> None:
    with pytest.raises(AssertionError):
        test_a_gateway_behaves_as_its_layers_nested("asyncio")
