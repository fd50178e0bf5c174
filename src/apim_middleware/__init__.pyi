from apim_middleware import by as by
from apim_middleware import conditions as conditions
from apim_middleware._caching.purging import CachedResponses as CachedResponses
from apim_middleware._caching.purging import CacheFigures as CacheFigures
from apim_middleware._certificates.identities import CertificateIdentity as CertificateIdentity
from apim_middleware._certificates.revocation import RevocationLists as RevocationLists
from apim_middleware._http.hygiene import Hygiene as Hygiene
from apim_middleware._jose.issuers import Issuer as Issuer
from apim_middleware._jose.proofs import DPoP as DPoP
from apim_middleware._jose.revocations import RevokedTokens as RevokedTokens
from apim_middleware._jose.rules import ClaimMatch as ClaimMatch
from apim_middleware._limits.headers import LimitHeaders as LimitHeaders
from apim_middleware._limits.overrides import Overrides as Overrides
from apim_middleware._limits.record_overrides import RecordOverrides as RecordOverrides
from apim_middleware._limits.standings import Standing as Standing
from apim_middleware._limits.standings import Standings as Standings
from apim_middleware._ring import refuse as refuse
from apim_middleware._signing.keys import SignatureKey as SignatureKey
from apim_middleware.credentials.credential import BasicCredential as BasicCredential
from apim_middleware.credentials.credential import BearerCredential as BearerCredential
from apim_middleware.credentials.credential import Credential as Credential
from apim_middleware.credentials.credential import HeaderCredential as HeaderCredential
from apim_middleware.credentials.credential import Shown as Shown
from apim_middleware.credentials.key_vault import KeyVaultSecret as KeyVaultSecret
from apim_middleware.credentials.managed_identity import ManagedIdentity as ManagedIdentity
from apim_middleware.credentials.oauth import ClientCredentials as ClientCredentials
from apim_middleware.credentials.oauth import TokenExchange as TokenExchange
from apim_middleware.credentials.secret import EnvironmentSecret as EnvironmentSecret
from apim_middleware.credentials.secret import FileSecret as FileSecret
from apim_middleware.credentials.secret import Secret as Secret
from apim_middleware.documentation import Documentation as Documentation
from apim_middleware.env import Env as Env
from apim_middleware.errors import ApimError as ApimError
from apim_middleware.errors import ConfigError as ConfigError
from apim_middleware.errors import FeedLost as FeedLost
from apim_middleware.errors import Refusal as Refusal
from apim_middleware.errors import StoreError as StoreError
from apim_middleware.errors import SubscriptionRefused as SubscriptionRefused
from apim_middleware.errors import VersionConflict as VersionConflict
from apim_middleware.exchange import Exchange as Exchange
from apim_middleware.gateway import Gateway as Gateway
from apim_middleware.gateway import Reloadable as Reloadable
from apim_middleware.gateway.app_of_apps import AppOfApps as AppOfApps
from apim_middleware.gateway.sub_app import SubApp as SubApp
from apim_middleware.guarding.coverage import Coverage as Coverage
from apim_middleware.guarding.coverage import Require as Require
from apim_middleware.guarding.coverage import coverage as coverage
from apim_middleware.guarding.guard import Only as Only
from apim_middleware.guarding.guard import guard as guard
from apim_middleware.guarding.guard import guarded_by as guarded_by
from apim_middleware.identity import Principal as Principal
from apim_middleware.identity import Subscription as Subscription
from apim_middleware.model import Api as Api
from apim_middleware.model import Deprecation as Deprecation
from apim_middleware.model import Fragment as Fragment
from apim_middleware.model import NamedValue as NamedValue
from apim_middleware.model import Operation as Operation
from apim_middleware.model import Product as Product
from apim_middleware.model import Revision as Revision
from apim_middleware.model import User as User
from apim_middleware.model import Version as Version
from apim_middleware.model import Versions as Versions
from apim_middleware.openapi.describing import describe as describe
from apim_middleware.openapi.describing import document_of as document_of
from apim_middleware.openapi.exporting import openapi_of as openapi_of
from apim_middleware.openapi.importing import api_from_openapi as api_from_openapi
from apim_middleware.openapi.publishing import PublishOpenAPI as PublishOpenAPI
from apim_middleware.policies.access_log import AccessLog as AccessLog
from apim_middleware.policies.answers import MockResponse as MockResponse
from apim_middleware.policies.answers import Redirect as Redirect
from apim_middleware.policies.answers import ReturnResponse as ReturnResponse
from apim_middleware.policies.api_key import APIKeyAuth as APIKeyAuth
from apim_middleware.policies.authorize import Authorize as Authorize
from apim_middleware.policies.basic import BasicAuth as BasicAuth
from apim_middleware.policies.branch import Choose as Choose
from apim_middleware.policies.branch import When as When
from apim_middleware.policies.cache import Cache as Cache
from apim_middleware.policies.client import IPFilter as IPFilter
from apim_middleware.policies.client import TrustedProxies as TrustedProxies
from apim_middleware.policies.client_certificate import ClientCertificate as ClientCertificate
from apim_middleware.policies.compress import Compress as Compress
from apim_middleware.policies.concurrency import LimitConcurrency as LimitConcurrency
from apim_middleware.policies.either import AllOf as AllOf
from apim_middleware.policies.either import AnyOf as AnyOf
from apim_middleware.policies.etag import ETag as ETag
from apim_middleware.policies.faults import Faults as Faults
from apim_middleware.policies.guesses import LimitGuesses as LimitGuesses
from apim_middleware.policies.headers import RemoveHeader as RemoveHeader
from apim_middleware.policies.headers import SetHeader as SetHeader
from apim_middleware.policies.hmac_signature import HMACSignature as HMACSignature
from apim_middleware.policies.http_signature import HTTPSignature as HTTPSignature
from apim_middleware.policies.idempotency import Idempotency as Idempotency
from apim_middleware.policies.identity_headers import IdentityHeaders as IdentityHeaders
from apim_middleware.policies.introspection import OAuth2Introspection as OAuth2Introspection
from apim_middleware.policies.jwt import JWTAuth as JWTAuth
from apim_middleware.policies.limits import Limits as Limits
from apim_middleware.policies.limits import Quota as Quota
from apim_middleware.policies.limits import RateLimit as RateLimit
from apim_middleware.policies.load_shed import LoadShed as LoadShed
from apim_middleware.policies.mirror import Mirror as Mirror
from apim_middleware.policies.protected_resource import ProtectedResource as ProtectedResource
from apim_middleware.policies.read_body import ReadBody as ReadBody
from apim_middleware.policies.require_header import RequireHeader as RequireHeader
from apim_middleware.policies.rewrite_location import RewriteLocation as RewriteLocation
from apim_middleware.policies.set_backend import SetBackend as SetBackend
from apim_middleware.policies.size import LimitBody as LimitBody
from apim_middleware.policies.split import Split as Split
from apim_middleware.policies.target import RemoveQuery as RemoveQuery
from apim_middleware.policies.target import RewritePath as RewritePath
from apim_middleware.policies.target import SetQuery as SetQuery
from apim_middleware.policies.timeout import Timeout as Timeout
from apim_middleware.policies.tracing import Tracing as Tracing
from apim_middleware.policies.upstream_auth import UpstreamAuth as UpstreamAuth
from apim_middleware.policy import Composable as Composable
from apim_middleware.policy import Policy as Policy
from apim_middleware.policy import Stack as Stack
from apim_middleware.protocols import Record as Record
from apim_middleware.protocols import Records as Records
from apim_middleware.proxy.affinity import Affinity as Affinity
from apim_middleware.proxy.app import Proxy as Proxy
from apim_middleware.proxy.breaker import CircuitBreaker as CircuitBreaker
from apim_middleware.proxy.ejection import Ejection as Ejection
from apim_middleware.proxy.health import HealthCheck as HealthCheck
from apim_middleware.proxy.members import Member as Member
from apim_middleware.proxy.members import Members as Members
from apim_middleware.proxy.members import Service as Service
from apim_middleware.proxy.pool import Pool as Pool
from apim_middleware.proxy.retry import Hedge as Hedge
from apim_middleware.proxy.retry import Retry as Retry
from apim_middleware.serving.forward_auth import ForwardAuth as ForwardAuth
from apim_middleware.serving.health import Drain as Drain
from apim_middleware.serving.health import Health as Health
from apim_middleware.stores.entries import MemoryEntries as MemoryEntries
from apim_middleware.stores.keys import KeyRecord as KeyRecord
from apim_middleware.stores.keys import Keyring as Keyring
from apim_middleware.stores.keys import KeyStore as KeyStore
from apim_middleware.stores.keys import MemoryKeys as MemoryKeys
from apim_middleware.stores.keys import NewSubscription as NewSubscription
from apim_middleware.stores.keys import key_digest as key_digest
from apim_middleware.stores.keys import new_key as new_key
from apim_middleware.stores.memory import MemoryCounters as MemoryCounters
from apim_middleware.stores.permits import MemoryPermits as MemoryPermits
from apim_middleware.stores.record_keys import RecordKeys as RecordKeys
from apim_middleware.stores.records import MemoryRecords as MemoryRecords
from apim_middleware.stores.users import MemoryUsers as MemoryUsers
from apim_middleware.stores.users import UserRecord as UserRecord
from apim_middleware.stores.users import UserStore as UserStore
from apim_middleware.stores.users import hash_password as hash_password
from apim_middleware.stores.values import CacheValue as CacheValue
from apim_middleware.transports.websockets import WebSockets as WebSockets

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
    "NewSubscription",
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
    "ReadBody",
    "Record",
    "RecordKeys",
    "RecordOverrides",
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
    "SetBackend",
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
    "SubscriptionRefused",
    "Timeout",
    "TokenExchange",
    "Tracing",
    "TrustedProxies",
    "UpstreamAuth",
    "User",
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
    "refuse",
]
