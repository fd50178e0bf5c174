"""What servers load in each of their workers."""

import logging
import os
import ssl
import sys
from pathlib import Path

from apim_middleware.cli._draining import begin_as_worker
from apim_middleware.cli._server_log import mask_server_log
from apim_middleware.cli._targets import found, is_file
from apim_middleware.cli._watching import Watched, stamp_of
from apim_middleware.gateway import Gateway
from apim_middleware.policies.access_log import access
from apim_middleware.serving._told import Unfinished
from apim_middleware.serving.certificates import server_context
from apim_middleware.serving.collector import tune_gc
from apim_middleware.serving.dates import Dated
from apim_middleware.serving.options import dates_what_has_none
from apim_middleware.types import ASGIApp

TARGET, NAMES, RELOAD, SERVER = "APIM_TARGET", "APIM_NAMES", "APIM_RELOAD", "APIM_SERVER"
CERTIFICATE, KEY = "APIM_CERTIFICATE", "APIM_KEY"
"""Variables by which a worker learns what to serve."""


def app() -> ASGIApp:
    """The app of this worker, as the environment says."""
    begin_as_worker()
    mask_server_log()
    target, names = os.environ[TARGET], os.environ.get(NAMES, "")
    stamp = stamp_of(Path(target))  # first, so that what changes meanwhile is taken over
    served: ASGIApp = found(target, names)
    _speak()  # last, for the app may see to that itself
    if isinstance(served, Gateway) and is_file(target) and os.environ.get(RELOAD):
        served = Watched(Path(target), served, lambda now: found(target, names, now), stamp=stamp)
    tune_gc()
    server = os.environ.get(SERVER)
    if server == "granian":
        served = Unfinished(served)
    return served if server == "uvicorn" and dates_what_has_none() else Dated(served)


def _speak() -> None:
    """Have what this package says be heard, unless somebody has seen to that; lines of AccessLog alone, on stdout."""
    ours = logging.getLogger("apim_middleware")
    if not ours.handlers and not logging.getLogger().handlers:
        logging.basicConfig(format="%(levelname)s:     %(message)s")
        ours.setLevel(logging.INFO)
        access.propagate = False  # those handlers are no place for JSON
        if not access.handlers:
            lines = logging.StreamHandler(sys.stdout)
            lines.setFormatter(logging.Formatter("%(message)s"))
            access.addHandler(lines)


def tls(config: object, default: object) -> ssl.SSLContext:
    """The TLS of this worker, which follows its files."""
    return server_context(os.environ[CERTIFICATE], os.environ[KEY])
