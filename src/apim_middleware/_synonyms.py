"""What fields of ours are called elsewhere: in Azure API Management, and in other packages of the same kind."""

from collections.abc import Collection

SYNONYMS: dict[str, tuple[str, ...]] = {
    # Azure API Management, its hyphens written as underscores
    "addresses": ("allow",),
    "allow_private_response_caching": ("private_to",),
    "bandwidth": ("units",),
    "base_url": ("upstream", "backend", "url"),
    "clock_skew": ("leeway",),
    "copy_unmatched_params": ("copy_query",),
    "count": ("attempts", "calls"),
    "counter_key": ("by",),
    "display_name": ("title",),
    "duration": ("ttl",),
    "exists_action": ("exists",),
    "expires_after": ("ttl",),
    "failed_check_error_message": ("message",),
    "failed_check_httpcode": ("status",),
    "first_period_start": ("starts",),
    "header_name": ("header", "token_from", "name"),
    "increment_after_response": ("increment",),
    "increment_condition": ("count_when",),
    "increment_count": ("cost",),
    "interval": ("backoff", "every", "per"),
    "issuer_signing_keys": ("keys",),
    "key": ("by", "keys"),
    "max_count": ("at_once",),
    "max_interval": ("max_backoff",),
    "max_size": ("max_bytes", "max_body_bytes"),
    "openid_config": ("issuer",),
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
    "blacklist": ("deny",),
    "code": ("status",),
    "compresslevel": ("gzip_level",),
    "database": ("path",),
    "expire": ("ttl",),
    "expires_in": ("ttl",),
    "file": ("path",),
    "key_func": ("by",),
    "limit": ("calls", "at_once", "max_bytes"),
    "max_age": ("ttl",),
    "max_concurrency": ("at_once",),
    "max_requests": ("calls", "at_once"),
    "max_retries": ("attempts",),
    "minimum_size": ("min_bytes",),
    "requests": ("calls",),
    "retries": ("attempts", "retry"),
    "seconds": ("per", "ttl"),
    "status_codes": ("statuses",),
    "timeout": ("read_timeout", "seconds", "wait"),
    "times": ("calls", "attempts"),
    "uri": ("redis", "storage"),
    "url": ("redis", "storage", "upstream", "backend"),
    "whitelist": ("allow",),
    "window": ("per",),
}
"""Under a name from elsewhere, the names here that can be meant: of a class, the first it has."""


def meant(name: str, fields: Collection[str]) -> str | None:
    """The one of these fields that a name from elsewhere means."""
    names = SYNONYMS.get(name.replace("-", "_").lower(), ())
    return next((each for each in names if each in fields), None)
