"""The signal that begins a drain, on its way from the process one knows to the workers it has started."""

import multiprocessing
import os
import signal
import socket
import threading
from contextlib import suppress
from types import FrameType

from apim_middleware.serving._notice import TO_DRAIN


def pass_drain_on() -> None:
    """Have the signal go on to the workers of this process."""
    if TO_DRAIN is not None:
        signal.signal(TO_DRAIN, _pass_on)


def overhear_drain() -> None:
    """As ``pass_drain_on``, below a supervisor that takes all signals for itself, as uvicorn's does.

    Whoever handles a signal, its number is written to the wakeup fd.
    """
    if TO_DRAIN is not None:
        pass_drain_on()
        heard, told = socket.socketpair()
        told.settimeout(0)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_listen, args=(heard, told, TO_DRAIN), daemon=True).start()


def begin_as_worker() -> None:
    """Leave the signal to whatever is served, in a worker that was forked off and has no workers itself."""
    if TO_DRAIN is not None and signal.getsignal(TO_DRAIN) is _pass_on:
        signal.signal(TO_DRAIN, signal.SIG_DFL)


def _listen(heard: socket.socket, told: socket.socket, number: int) -> None:
    """``told`` is held, for nobody else does."""
    while numbers := heard.recv(64):
        if number in numbers:
            _pass_on(number, None)


def _pass_on(number: int, frame: FrameType | None) -> None:
    for worker in multiprocessing.active_children():
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)
