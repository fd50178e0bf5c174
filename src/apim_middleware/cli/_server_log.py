"""What a server writes down of requests, without the values of secret parameters."""

import logging

from apim_middleware._telemetry.masking import Mask

_SPEAKERS = ("uvicorn.access", "uvicorn.error")
"""The loggers that get targets of requests, the second those of WebSockets."""


class _Masked(logging.Filter):
    """Lets every record through, its targets masked."""

    def __init__(self) -> None:
        super().__init__()
        self._mask = Mask()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it through."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._masked, record.args))
        return True

    def _masked(self, told: object) -> object:
        if isinstance(told, str) and "=" in told:
            return self._mask(told.encode("latin-1", "replace"))
        return told


_masked = _Masked()


def mask_server_log() -> None:
    """Have the lines of the server hold no secrets, once however often it is said."""
    for name in _SPEAKERS:
        logging.getLogger(name).addFilter(_masked)
