"""What a gateway is made of, as values: APIs with their versions, revisions and operations, products, named values.

Names are of letters, digits, dots, hyphens and underscores, 80 at most; they name places of counters, so that renaming
something begins its counts anew.
"""

from apim_middleware.model._values import check_name, check_unique
from apim_middleware.model.apis import Api, Definition, definitions
from apim_middleware.model.fragments import Fragment, NamedValue
from apim_middleware.model.operations import ANY, WEBSOCKET, Deprecation, Operation
from apim_middleware.model.products import Product, User
from apim_middleware.model.versions import Revision, Version, Versions

__all__ = [
    "ANY",
    "WEBSOCKET",
    "Api",
    "Definition",
    "Deprecation",
    "Fragment",
    "NamedValue",
    "Operation",
    "Product",
    "Revision",
    "User",
    "Version",
    "Versions",
    "check_name",
    "check_unique",
    "definitions",
]
