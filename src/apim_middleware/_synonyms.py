"""What policies and fields of ours are called elsewhere: in Azure API Management, and in other packages of the kind."""

import re
from collections.abc import Collection

SYNONYMS: dict[str, tuple[str, ...]] = {
    # Azure API Management, its hyphens written as underscores
    "addresses": ("allow",),
    "allow_private_response_caching": ("private_to",),
    "bandwidth": ("units",),
    "base_url": ("upstream", "backend", "url"),
    "clock_skew": ("leeway",),
    "copy_unmatched_params": ("copy_query",),
    "count": ("attempts", "calls", "failures"),
    "counter_key": ("by",),
    "display_name": ("title",),
    "duration": ("ttl",),
    "exists_action": ("exists",),
    "expires_after": ("ttl",),
    "failed_check_error_message": ("message",),
    "failed_check_httpcode": ("status",),
    "first_period_start": ("starts",),
    "forbid": ("deny",),
    "header_name": ("header", "token_from", "name"),
    "increment_after_response": ("increment",),
    "interval": ("backoff", "every", "per"),
    "issuer_signing_keys": ("keys",),
    "key": ("by", "keys"),
    "max_count": ("at_once",),
    "max_interval": ("max_backoff",),
    "max_size": ("max_bytes", "max_body_bytes"),
    "query_parameter_name": ("query", "token_from"),
    "remaining_calls_header_name": ("headers",),
    "renewal_period": ("per",),
    "retry_after_header_name": ("headers",),
    "service_url": ("backend",),
    "status_code": ("status",),
    "template": ("to",),
    "total_calls_header_name": ("headers",),
    "trip_duration": ("open_for",),
    "url_template": ("template",),
    "vary_by_developer": ("private_to",),
    "vary_by_header": ("vary_by",),
    "vary_by_query_parameter": ("only_query",),
    # other packages
    "base_ejection_time": ("out_for",),
    "blacklist": ("deny",),
    "code": ("status",),
    "collapse": ("collapse_wait",),
    "compresslevel": ("gzip_level",),
    "database": ("path",),
    "expire": ("ttl",),
    "expires_in": ("ttl",),
    "file": ("path",),
    "fixed_delay": ("delay",),
    "jwks_keep": ("jwks_stale_if_error",),
    "keep": ("remember_for", "keep_stale", "stale_if_error"),
    "keep_refused": ("remember_refused_for",),
    "key_func": ("by",),
    "limit": ("calls", "at_once", "max_bytes"),
    "lock_timeout": ("collapse_wait",),
    "max_age": ("ttl",),
    "max_concurrency": ("at_once",),
    "max_ejection_percent": ("at_most",),
    "max_ejection_time": ("longest",),
    "max_requests": ("calls", "at_once"),
    "max_retries": ("attempts",),
    "minimum_size": ("min_bytes",),
    "remember": ("max_remembered",),
    "requests": ("calls",),
    "retries": ("attempts", "retry"),
    "seconds": ("per", "ttl", "delay", "out_for"),
    "status_codes": ("statuses",),
    "timeout": ("read_timeout", "seconds", "wait"),
    "times": ("calls", "attempts"),
    "uri": ("redis", "storage"),
    "url": ("redis", "storage", "upstream", "backend"),
    "whitelist": ("allow",),
    "window": ("per",),
}
"""Under a name from elsewhere, the names here that can be meant: of a class, the first it has."""


_NO_MESSAGE = (
    "There is none: a bad token is a 401 with a challenge. A policy of your own further out, with on_response, can "
    "change the answer"
)

ADVICE: dict[str, tuple[str, str]] = {
    "action": ("deny", "There is none: write allow=(...) or deny=(...)"),
    "caching_type": ("fixed_ttl", "There is none: Env(entries=...) says where responses are kept"),
    "downstream_caching_type": (
        "fixed_ttl",
        "There is none: a SetHeader of Cache-Control before Cache says what callers may keep",
    ),
    "failed_validation_error_message": ("leeway", _NO_MESSAGE),
    "failed_validation_httpcode": ("leeway", _NO_MESSAGE),
    "increment_condition": ("count_when", 'Write count_when=..., and increment="afterwards" as Azure has it'),
    "increment_count": (
        "used",
        "Write used=... for what is known at the end, cost=... for what is known before: each a number of units, or a "
        'function of the exchange; count_when=... says whether. With increment="afterwards" they count as in Azure',
    ),
    "must_revalidate": (
        "fixed_ttl",
        "There is none: a SetHeader of Cache-Control before Cache says what callers may keep",
    ),
    "openid_config": (
        "jwks_url",
        "Write issuer=..., the issuer itself, without /.well-known/openid-configuration. Where its metadata is "
        "elsewhere, write issuer=Issuer(..., metadata_url=...)",
    ),
    "output_token_variable_name": (
        "leeway",
        "There is none: the caller is exchange.principal, with the claims of the token",
    ),
    "require_expiration_time": ("jwks_url", "There is none: a token without exp is always refused"),
    "require_scheme": ("leeway", "There is none: the scheme is always Bearer, and DPoP where dpop=... is given"),
    "require_signed_tokens": ("jwks_url", "There is none: a token that is not signed is always refused"),
    "state": ("published", "Write published=True or published=False"),
    "token_value": ("token_from", 'Write token_from=..., such as "header:x-token" or "query:access_token"'),
    "vary_by_developer_groups": ("private_to", "There is none: write private_to=..., a function of the exchange"),
}
"""What to do about a name from elsewhere that means no one field here, in classes that have the field beside it."""

VALUES: dict[tuple[str, str], str] = {
    ("by", "segment"): 'Write by="path"',
    ("exists", "delete"): "Use RemoveHeader, or RemoveQuery, to take it away",
    ("on", "backend"): 'Write on="request"',
    ("on", "inbound"): 'Write on="request"',
    ("on", "outbound"): 'Write on="response"',
}
"""What a word from elsewhere is called here, in the field that it is given for."""

POLICIES: dict[str, str] = {
    "authentication-basic": "UpstreamAuth with a BasicCredential",
    "authentication-certificate": "client_certificate, for the TLS of a Proxy",
    "authentication-managed-identity": "UpstreamAuth with ManagedIdentity",
    "azure-openai-token-limit": "RateLimit with used=..., behind ReadBody",
    "cache-lookup": "Cache",
    "cache-lookup-value": "CacheValue",
    "cache-remove-value": "CacheValue",
    "cache-store": "Cache",
    "cache-store-value": "CacheValue",
    "cache-value": "CacheValue",
    "check-header": "RequireHeader",
    "choose": "When, or Choose",
    "cors": "partial(CORSMiddleware, ...) of Starlette",
    "cross-domain": "",
    "emit-metric": "exchange.attributes, with Tracing",
    "find-and-replace": "a policy of your own",
    "forward-request": "Api(backend=...), a Proxy",
    "get-authorization-context": "UpstreamAuth with ClientCredentials",
    "include-fragment": "Fragment",
    "ip-filter": "IPFilter",
    "json-to-xml": "",
    "jsonp": "",
    "limit-concurrency": "LimitConcurrency",
    "llm-content-safety": "",
    "llm-emit-token-metric": "",
    "llm-token-limit": "RateLimit with used=..., behind ReadBody",
    "log-to-eventhub": "AccessLog with write=...",
    "mock-response": "MockResponse",
    "proxy": "",
    "quota": "Quota",
    "quota-by-key": "Quota with by=...",
    "rate-limit": "RateLimit",
    "rate-limit-by-key": "RateLimit with by=...",
    "redirect-content-urls": "RewriteLocation",
    "retry": "Proxy(..., retry=Retry())",
    "return-response": "ReturnResponse",
    "rewrite-uri": "RewritePath",
    "send-one-way-request": "Mirror",
    "send-request": "a policy of your own with an HTTP client",
    "send-service-bus-message": "",
    "set-backend-service": "Api(backend=...) or SetBackend",
    "set-body": "a policy of your own that sets exchange.body, behind ReadBody",
    "set-header": "SetHeader, or RemoveHeader",
    "set-method": "a policy of your own",
    "set-query-parameter": "SetQuery, or RemoveQuery",
    "set-status": "a policy of your own",
    "set-variable": "exchange.attributes",
    "trace": "exchange.attributes, with Tracing",
    "validate-azure-ad-token": "JWTAuth with Issuer.entra(...)",
    "validate-client-certificate": "ClientCertificate",
    "validate-content": "",
    "validate-graphql-request": "",
    "validate-headers": "",
    "validate-jwt": "JWTAuth",
    "validate-odata-request": "",
    "validate-parameters": "",
    "validate-status-code": "",
    "wait": "",
    "xml-to-json": "",
    "xsl-transform": "",
}
"""What the policies of Azure API Management are here; nothing for those without a counterpart."""

_NAMED_VALUE = re.compile(r"\{\{\s*[\w.-]+\s*\}\}")
_EXPRESSION = re.compile(r"@\(.*\)|@\{.*\}", re.DOTALL)

_BY_LETTERS = {name.replace("-", ""): name for name in POLICIES}


def called_here(name: str) -> str | None:
    """What a policy of Azure is here, as a sentence, however its name is written; None for no policy of Azure."""
    theirs = _BY_LETTERS.get(name.replace("-", "").replace("_", "").lower())
    if theirs is None:
        return None
    ours = POLICIES[theirs]
    return f"Azure's {theirs} is {ours} here" if ours else f"Azure's {theirs} has no counterpart here"


def advice(name: str, fields: Collection[str]) -> str | None:
    """What to do about a name from elsewhere, in a class with these fields, where it means no one of them."""
    field, cure = ADVICE.get(name.replace("-", "_").lower(), ("", ""))
    return cure if field in fields else None


def meant(name: str, fields: Collection[str]) -> str | None:
    """The one of these fields that a name from elsewhere means."""
    names = SYNONYMS.get(name.replace("-", "_").lower(), ())
    return next((each for each in names if each in fields), None)


def meant_by_text(text: str) -> str | None:
    """What a text of Azure seems to mean, where it is sent as it is written, and what to write; never the text."""
    if _EXPRESSION.fullmatch(text.strip()):
        example = 'by.body("/model") behind ReadBody' if "Request.Body" in text else "by.subscription"
        return f"an expression is a function of the exchange, such as {example}"
    if _NAMED_VALUE.search(text):
        return "a named value is a NamedValue, or a function that asks one"
    return None
