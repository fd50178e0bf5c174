"""The gateway: APIs, operations, products, subscriptions and scopes over the same policies."""

from apim_middleware.gateway._compiled import Row
from apim_middleware.gateway._plans import PlacedLayer
from apim_middleware.gateway.app import Gateway
from apim_middleware.gateway.difference import Change, difference
from apim_middleware.gateway.reload import Reloadable

__all__ = ["Change", "Gateway", "PlacedLayer", "Reloadable", "Row", "difference"]
