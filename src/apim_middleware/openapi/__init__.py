"""OpenAPI 3.0 and 3.1: documents become APIs, and gateways and guarded apps say in documents what they enforce."""

from apim_middleware.openapi.describing import describe, document_of
from apim_middleware.openapi.exporting import openapi_of
from apim_middleware.openapi.importing import api_from_openapi
from apim_middleware.openapi.publishing import PublishOpenAPI

__all__ = ["PublishOpenAPI", "api_from_openapi", "describe", "document_of", "openapi_of"]
