"""What in a request tells one caller from another."""

import pytest

from apim_middleware._http.credentials import Credential, carried_in


@pytest.mark.parametrize(
    ("names", "carried"),
    [
        ([b"host", b"accept"], set()),
        ([b"authorization"], {"authorization"}),
        ([b"proxy-authorization"], {"authorization"}),
        ([b"cookie", b"x-api-key"], {"cookie", "key"}),
    ],
)
def test_the_credentials_in_a_request(names: list[bytes], carried: set[str]) -> None:
    assert carried_in([(name, b"") for name in names]) == carried


KEYS = (
    b"x-auth x-authorization client-assertion x-credential x-credentials dpop x-jwt x-passwd x-password x-secret "
    b"x-token x-csrf-tokens x-ms-client-principal x-session x-sessionid signature apikey api_key x-access-key "
    b"x-auth-key x-functions-key x-function-key ocp-apim-subscription-key x-master-key".split()
)
CERTIFICATES = b"client-cert x-client-certs x-ssl-certificate x-certificates clientcert x-ssl-client-dn".split()
NEITHER = b"host accept author x-secretary sessions-count idempotency-key keyboard x-certainty".split()


@pytest.mark.parametrize(
    ("names", "carried"),
    [(KEYS, {"key"}), (CERTIFICATES, {"certificate"}), (NEITHER, set())],
)
def test_what_a_field_carries_is_known_by_how_it_is_called(names: list[bytes], carried: set[str]) -> None:
    for name in names:
        assert carried_in([(name, b"")]) == carried, name


IDENTITIES: dict[Credential, dict[str, str]] = {
    "key": {
        "words run together": "x-authtoken x-accesstoken x-sessiontoken x-usertoken authtoken accesstoken x-csrftoken "
        "x-apitoken requestverificationtoken x-userkey x-webauth smsession jsessionid x-sid x-otp x-passcode",
        "AWS": "x-amzn-oidc-accesstoken x-amzn-oidc-data x-amzn-oidc-identity x-amz-security-token "
        "x-amz-server-side-encryption-customer-key",
        "Azure": "x-ms-client-principal x-ms-token-aad-id-token x-zumo-auth x-functions-key",
        "Google": "x-goog-iap-jwt-assertion x-goog-api-key x-firebase-appcheck-token x-serverless-authorization",
        "Cloudflare": "cf-access-jwt-assertion cf-access-client-secret cf-access-token",
        "Kong and APISIX": "x-credential-identifier x-id-token x-access-token x-refresh-token apikey",
        "oauth2-proxy": "x-auth-request-user x-auth-request-email x-auth-request-groups gap-auth "
        "x-forwarded-access-token",
        "Pomerium, Vouch, Teleport": "x-pomerium-jwt-assertion x-vouch-idp-accesstoken teleport-jwt-assertion",
        "sites": "private-token x-vault-token x-shopify-access-token x-parse-session-token fastly-key dd-api-key "
        "dd-application-key x-hub-signature-256 x-signature-ed25519 x-hasura-admin-secret x-wp-nonce jenkins-crumb",
        "Grafana": "x-webauth-user x-webauth-name x-webauth-email x-webauth-groups x-webauth-role",
        "mod_auth_openidc": "oidc-claim-sub oidc-access-token",
    },
    "principal": {
        "Google": "x-goog-authenticated-user-email x-goog-authenticated-user-id x-goog-authuser "
        "x-apigateway-api-userinfo x-endpoint-api-userinfo",
        "Cloudflare": "cf-access-authenticated-user-email cf-access-client-id",
        "Kong and APISIX": "x-consumer-id x-consumer-username x-consumer-custom-id x-consumer-groups x-userinfo "
        "x-anonymous-consumer x-authenticated-userid x-authenticated-user x-authenticated-scope",
        "Tailscale": "tailscale-user-login tailscale-user-name tailscale-user-profile-pic tailscale-app-capabilities",
        "Authelia, authentik": "remote-user remote-groups remote-name remote-email x-authentik-uid x-authentik-name",
        "Kubernetes": "x-remote-user x-remote-group x-remote-extra-scopes impersonate-user impersonate-uid",
        "oauth2-proxy": "x-forwarded-user x-forwarded-email x-forwarded-groups x-forwarded-preferred-username",
        "Pomerium, Vouch": "x-pomerium-claim-email x-vouch-user x-vouch-idp-claims-groups",
        "WebSEAL, SiteMinder, Shibboleth": "iv-user iv-groups sm-user oam-remote-user shib-identity-provider eppn upn",
        "OpenStack, Hasura": "x-user-id x-user-name x-roles x-hasura-role x-hasura-user-id",
        "of one's own": "x-user x-userid x-username x-user-email x-email x-login x-identity x-claims x-ibm-client-id "
        "uid x-uid x-user-uuid x-user-guid x-user-account x-user-account-id x-user-display-name x-act-as x-run-as "
        "x-account x-account-id x-customer x-customer-id x-member x-member-id x-employee x-employee-id x-caller "
        "x-caller-id x-actor x-actor-id x-ssn x-msisdn",
    },
    "certificate": {
        "fronts": "x-amzn-mtls-clientcert-leaf x-amzn-mtls-clientcert-subject x-arr-clientcert ssl-client-verify "
        "x-ssl-client-s-dn x-ssl-client-serial x-forwarded-tls-client-cert-info x-forwarded-client-cert x-spiffe-id",
    },
}
"""Headers that fronts and sites document for whom a request is of; the response to one is not for the next."""


@pytest.mark.parametrize(
    ("name", "carried"),
    [
        (name, carried)
        for carried, vendors in IDENTITIES.items()
        for names in vendors.values()
        for name in names.split()
    ],
)
def test_what_fronts_and_sites_know_a_caller_by_tells_callers_apart(name: str, carried: str) -> None:
    assert carried_in([(name.encode(), b"")]) == {carried}


COMMON = (
    "accept accept-charset accept-encoding accept-language accept-datetime access-control-request-headers "
    "access-control-request-method alt-used b3 baggage cache-control cdn-loop cf-ray cf-ipcountry "
    "cloudfront-viewer-country connection content-digest content-encoding content-language content-length content-md5 "
    "content-type date "
    "device-memory dnt dpr early-data expect from host hx-request idempotency-key if-match if-modified-since "
    "if-none-match if-range if-unmodified-since keep-alive last-event-id max-forwards mcp-protocol-version origin "
    "pragma prefer priority purpose range referer rsc save-data sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform "
    "sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc sec-purpose sec-websocket-extensions "
    "sec-websocket-key sec-websocket-protocol sec-websocket-version sentry-trace te traceparent tracestate "
    "transfer-encoding upgrade upgrade-insecure-requests user-agent via x-amzn-trace-id x-appengine-user-ip "
    "x-b3-traceid x-bypass x-cache-key x-cloud-trace-context x-compass x-correlation-id x-datadog-trace-id "
    "x-device-user-agent x-edge-location x-forwarded x-forwarded-by x-forwarded-for x-forwarded-host "
    "x-forwarded-method "
    "x-forwarded-port x-forwarded-prefix x-forwarded-proto x-forwarded-scheme x-forwarded-server x-forwarded-ssl "
    "x-forwarded-uri x-inside x-ms-client-request-id x-original-user-agent x-partition-key x-plan x-prompt-tokens "
    "x-queue-start x-ratelimit-remaining-tokens x-request-id x-request-key x-requested-with x-secretary x-tenant "
    "x-tenant-id x-user-language x-user-timezone surrogate-key x-org x-org-id x-device-uid x-account-type "
    "cf-cert-presented cf-cert-revoked cf-cert-verified cf-client-cert-verified cf-tls-client-hello-random "
    "x-client-cert-chain-verified x-client-cert-error x-client-cert-present x-akamai-session-info x-build-key "
    "x-csp-nonce x-datadog-rum-session-id x-faro-session-id x-feature-key x-hotkey x-locale-key x-monkey "
    "x-ms-client-session-id x-region-key x-session-replay x-sm-region x-token-count x-tokenizer"
)


@pytest.mark.parametrize("name", COMMON.split())
def test_what_most_requests_have_tells_nobody_from_others(name: str) -> None:
    assert carried_in([(name.encode(), b"")]) == set()
