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
