"""Whether an app lets go of a request that failed without the garbage collector."""

import gc
import weakref

from apim_middleware.testing import call
from apim_middleware.types import ASGIApp


class Load:
    """What a request holds in memory."""


async def is_let_go(app: ASGIApp) -> bool:
    """Send a request that makes the app raise RuntimeError, and see whether anything holds it afterwards."""
    load = Load()
    held = weakref.ref(load)
    gc.disable()
    try:
        try:
            await call(app, state={"load": load})
        except RuntimeError:
            pass  # not by pytest.raises or the like, which hold what was raised
        else:
            raise AssertionError("the request did not fail")
        del load
        return held() is None
    finally:
        gc.enable()
