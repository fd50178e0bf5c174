"""API management as composable ASGI middleware: policies in plain Python, in front of any ASGI app or of the proxy."""

from apim_middleware import by, conditions
from apim_middleware._certificates.identities import CertificateIdentity
from apim_middleware._certificates.revocation import RevocationLists
from apim_middleware._http.hygiene import Hygiene
from apim_middleware._limits.headers import LimitHeaders
from apim_middleware._limits.overrides import Overrides
from apim_middleware._limits.standings import Standing, Standings
from apim_middleware._signing.keys import SignatureKey
from apim_middleware.env import Env
from apim_middleware.errors import ApimError, ConfigError, Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import IPFilter, TrustedProxies
from apim_middleware.policies.client_certificate import ClientCertificate
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policies.either import AllOf, AnyOf
from apim_middleware.policies.headers import RemoveHeader, SetHeader
from apim_middleware.policies.hmac_signature import HMACSignature
from apim_middleware.policies.http_signature import HTTPSignature
from apim_middleware.policies.identity_headers import IdentityHeaders
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policies.load_shed import LoadShed
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policies.target import RemoveQuery, RewritePath, SetQuery
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Composable, Policy, Stack
from apim_middleware.proxy.app import Proxy
from apim_middleware.stores.keys import KeyRecord, KeyStore, MemoryKeys, key_digest, new_key
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.stores.users import MemoryUsers, UserRecord, UserStore, hash_password

__all__ = [
    "APIKeyAuth",
    "AllOf",
    "AnyOf",
    "ApimError",
    "Authorize",
    "BasicAuth",
    "Cache",
    "CertificateIdentity",
    "Choose",
    "ClientCertificate",
    "Composable",
    "ConfigError",
    "Env",
    "Exchange",
    "HMACSignature",
    "HTTPSignature",
    "Hygiene",
    "IPFilter",
    "IdentityHeaders",
    "JWTAuth",
    "KeyRecord",
    "KeyStore",
    "LimitConcurrency",
    "LimitHeaders",
    "Limits",
    "LoadShed",
    "MemoryCounters",
    "MemoryKeys",
    "MemoryPermits",
    "MemoryUsers",
    "Overrides",
    "Policy",
    "Principal",
    "Proxy",
    "Quota",
    "RateLimit",
    "Refusal",
    "RemoveHeader",
    "RemoveQuery",
    "RequireHeader",
    "RewritePath",
    "RevocationLists",
    "SetHeader",
    "SetQuery",
    "SignatureKey",
    "Stack",
    "Standing",
    "Standings",
    "StoreError",
    "Subscription",
    "Tracing",
    "TrustedProxies",
    "UserRecord",
    "UserStore",
    "When",
    "by",
    "conditions",
    "hash_password",
    "key_digest",
    "new_key",
]
