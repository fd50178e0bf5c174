"""The signal that begins a drain, on its way from the process one knows to the workers it has started."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from apim_middleware.serving._notice import TO_DRAIN, survive_drain


@contextmanager
def drain_passed_on() -> Iterator[None]:
    """Have the signal go on to the workers that are started meanwhile.

    It is blocked, so that no supervisor takes it, and workers inherit that: it waits until they are ready for it.
    """
    if TO_DRAIN is None:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {TO_DRAIN})
    threading.Thread(target=_listen, args=(TO_DRAIN,), daemon=True).start()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_as_worker() -> None:
    """From here on the signal is heard, and kills no worker, whatever is served and whenever that will listen."""
    if TO_DRAIN is not None:
        survive_drain()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {TO_DRAIN})


def _listen(number: signal.Signals) -> None:
    while signal.sigwait({number}):
        _pass_on(number)


def _pass_on(number: signal.Signals) -> None:
    for worker in multiprocessing.active_children():
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)
