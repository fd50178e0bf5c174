"""Counters in Redis against the slow and obvious model."""

import itertools
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.servers import RedisServer

from apim_middleware.stores.redis import RedisCounters

from .model import MODELS, CountersMachine, Model, Sliding

_serial = itertools.count()


class AlignedSliding(Sliding):
    """Windows that begin with those of the clock, whoever asks."""

    def turn(self, key: str) -> None:
        self.number = round(self.clock.now() * 1e6) // round(self.limit.window * 1e6)


class RedisMachine(CountersMachine):
    """All examples on one server, each with a prefix of its own."""

    clock_jumps = False
    models: ClassVar[dict[str, type[Model]]] = {**MODELS, "sliding": AlignedSliding}
    url: ClassVar[str]

    async def open(self) -> RedisCounters:
        self.store = RedisCounters(self.url, prefix=f"model-{next(_serial)}", clock=self.clock)
        return self.store

    async def close(self) -> None:
        await self.store.aclose()


def test_whatever_is_done_in_any_order_is_told_as_the_model_says(shared_redis: RedisServer) -> None:
    class Machine(RedisMachine):
        url = shared_redis.url

    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    looked = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(Machine, settings=looked)
