"""Gateways in files: TOML, YAML or JSON, read into the values of the Python API and written from them."""

from apim_middleware.configuration.files import dumps, load, loads
from apim_middleware.configuration.schema import json_schema

__all__ = ["dumps", "json_schema", "load", "loads"]
