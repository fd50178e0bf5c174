"""The gate of counters in memory, where nothing is awaited."""

from collections.abc import Sequence

from apim_middleware._limits.asking import ask_now
from apim_middleware._limits.corrections import settle_now
from apim_middleware._limits.gates import Gate
from apim_middleware._limits.meters import Meter
from apim_middleware._limits.stand_in import StandIn
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Change
from apim_middleware.stores.memory import MemoryCounters


class GateInMemory(Gate):
    """Counts in the memory of this process, without awaiting."""

    def __init__(self, meters: Sequence[Meter], env: Env, counters: MemoryCounters) -> None:
        super().__init__(meters, env)
        self.counters = counters

    def on_request(self, exchange: Exchange) -> None:
        """Let the request in, or refuse it."""
        asked = self.ask(exchange)
        ask_now(asked, self.counters, peeks=self.peeks)
        self.judge(exchange, asked)

    def try_out(self, exchange: Exchange) -> None:
        """Do what ``on_request`` does, and let the request in whatever comes out."""
        try:
            self.on_request(exchange)
        except Exception as error:
            self.failed_unfelt(exchange, error)

    def correct(self, changes: list[Change], stand_in: StandIn | None) -> None:
        """Bring the counts in order at once."""
        settle_now(self.counters, changes)
