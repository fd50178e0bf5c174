"""The way to an upstream, as an ASGI app at the end of a stack."""

from apim_middleware.proxy.app import Proxy

__all__ = ["Proxy"]
