"""API management as composable ASGI middleware: policies in plain Python, in front of any ASGI app or of the proxy."""

from apim_middleware import by, conditions
from apim_middleware._caching.purging import CachedResponses, CacheFigures
from apim_middleware._certificates.identities import CertificateIdentity
from apim_middleware._certificates.revocation import RevocationLists
from apim_middleware._http.hygiene import Hygiene
from apim_middleware._jose.issuers import Issuer
from apim_middleware._jose.proofs import DPoP
from apim_middleware._jose.revocations import RevokedTokens
from apim_middleware._jose.rules import ClaimMatch
from apim_middleware._limits.headers import LimitHeaders
from apim_middleware._limits.overrides import Overrides
from apim_middleware._limits.standings import Standing, Standings
from apim_middleware._signing.keys import SignatureKey
from apim_middleware.credentials.credential import (
    BasicCredential,
    BearerCredential,
    Credential,
    HeaderCredential,
    Shown,
)
from apim_middleware.credentials.key_vault import KeyVaultSecret
from apim_middleware.credentials.managed_identity import ManagedIdentity
from apim_middleware.credentials.oauth import ClientCredentials, TokenExchange
from apim_middleware.credentials.secret import EnvironmentSecret, FileSecret, Secret
from apim_middleware.documentation import Documentation
from apim_middleware.env import Env
from apim_middleware.errors import ApimError, ConfigError, FeedLost, Refusal, StoreError, VersionConflict
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.gateway.app_of_apps import AppOfApps
from apim_middleware.gateway.sub_app import SubApp
from apim_middleware.guarding.coverage import Coverage, Require, coverage
from apim_middleware.guarding.guard import Only, guard, guarded_by
from apim_middleware.identity import Principal, Subscription
from apim_middleware.model import (
    Api,
    Deprecation,
    Fragment,
    NamedValue,
    Operation,
    Product,
    Revision,
    Version,
    Versions,
)
from apim_middleware.openapi.describing import describe, document_of
from apim_middleware.openapi.exporting import openapi_of
from apim_middleware.openapi.importing import api_from_openapi
from apim_middleware.openapi.publishing import PublishOpenAPI
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policies.answers import MockResponse, Redirect, ReturnResponse
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import IPFilter, TrustedProxies
from apim_middleware.policies.client_certificate import ClientCertificate
from apim_middleware.policies.compress import Compress
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policies.either import AllOf, AnyOf
from apim_middleware.policies.etag import ETag
from apim_middleware.policies.faults import Faults
from apim_middleware.policies.guesses import LimitGuesses
from apim_middleware.policies.headers import RemoveHeader, SetHeader
from apim_middleware.policies.hmac_signature import HMACSignature
from apim_middleware.policies.http_signature import HTTPSignature
from apim_middleware.policies.idempotency import Idempotency
from apim_middleware.policies.identity_headers import IdentityHeaders
from apim_middleware.policies.introspection import OAuth2Introspection
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policies.load_shed import LoadShed
from apim_middleware.policies.mirror import Mirror
from apim_middleware.policies.protected_resource import ProtectedResource
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policies.rewrite_location import RewriteLocation
from apim_middleware.policies.size import LimitBody
from apim_middleware.policies.split import Split
from apim_middleware.policies.target import RemoveQuery, RewritePath, SetQuery
from apim_middleware.policies.timeout import Timeout
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policies.upstream_auth import UpstreamAuth
from apim_middleware.policy import Composable, Policy, Stack
from apim_middleware.protocols import Record, Records
from apim_middleware.proxy.affinity import Affinity
from apim_middleware.proxy.app import Proxy
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.ejection import Ejection
from apim_middleware.proxy.health import HealthCheck
from apim_middleware.proxy.members import Member, Members, Service
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Hedge, Retry
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.serving.health import Drain, Health
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.keys import KeyRecord, Keyring, KeyStore, MemoryKeys, key_digest, new_key
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.stores.users import MemoryUsers, UserRecord, UserStore, hash_password
from apim_middleware.stores.values import CacheValue
from apim_middleware.transports.websockets import WebSockets

__all__ = [
    "APIKeyAuth",
    "AccessLog",
    "Affinity",
    "AllOf",
    "AnyOf",
    "Api",
    "ApimError",
    "AppOfApps",
    "Authorize",
    "BasicAuth",
    "BasicCredential",
    "BearerCredential",
    "Cache",
    "CacheFigures",
    "CacheValue",
    "CachedResponses",
    "CertificateIdentity",
    "Choose",
    "CircuitBreaker",
    "ClaimMatch",
    "ClientCertificate",
    "ClientCredentials",
    "Composable",
    "Compress",
    "ConfigError",
    "Coverage",
    "Credential",
    "DPoP",
    "Deprecation",
    "Documentation",
    "Drain",
    "ETag",
    "Ejection",
    "Env",
    "EnvironmentSecret",
    "Exchange",
    "Faults",
    "FeedLost",
    "FileSecret",
    "ForwardAuth",
    "Fragment",
    "Gateway",
    "HMACSignature",
    "HTTPSignature",
    "HeaderCredential",
    "Health",
    "HealthCheck",
    "Hedge",
    "Hygiene",
    "IPFilter",
    "Idempotency",
    "IdentityHeaders",
    "Issuer",
    "JWTAuth",
    "KeyRecord",
    "KeyStore",
    "KeyVaultSecret",
    "Keyring",
    "LimitBody",
    "LimitConcurrency",
    "LimitGuesses",
    "LimitHeaders",
    "Limits",
    "LoadShed",
    "ManagedIdentity",
    "Member",
    "Members",
    "MemoryCounters",
    "MemoryEntries",
    "MemoryKeys",
    "MemoryPermits",
    "MemoryRecords",
    "MemoryUsers",
    "Mirror",
    "MockResponse",
    "NamedValue",
    "OAuth2Introspection",
    "Only",
    "Operation",
    "Overrides",
    "Policy",
    "Pool",
    "Principal",
    "Product",
    "ProtectedResource",
    "Proxy",
    "PublishOpenAPI",
    "Quota",
    "RateLimit",
    "Record",
    "RecordKeys",
    "Records",
    "Redirect",
    "Refusal",
    "Reloadable",
    "RemoveHeader",
    "RemoveQuery",
    "Require",
    "RequireHeader",
    "Retry",
    "ReturnResponse",
    "Revision",
    "RevocationLists",
    "RevokedTokens",
    "RewriteLocation",
    "RewritePath",
    "Secret",
    "Service",
    "SetHeader",
    "SetQuery",
    "Shown",
    "SignatureKey",
    "Split",
    "Stack",
    "Standing",
    "Standings",
    "StoreError",
    "SubApp",
    "Subscription",
    "Timeout",
    "TokenExchange",
    "Tracing",
    "TrustedProxies",
    "UpstreamAuth",
    "UserRecord",
    "UserStore",
    "Version",
    "VersionConflict",
    "Versions",
    "WebSockets",
    "When",
    "api_from_openapi",
    "by",
    "conditions",
    "coverage",
    "describe",
    "document_of",
    "guard",
    "guarded_by",
    "hash_password",
    "key_digest",
    "new_key",
    "openapi_of",
]
