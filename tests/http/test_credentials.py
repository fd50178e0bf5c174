"""What in a request tells one caller from another."""

import pytest

from apim_middleware._http.credentials import carried_in


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
