"""Fields of ``Idempotency`` that would do nothing are refused while building."""

from typing import Literal

import pytest

from apim_middleware.errors import ConfigError
from apim_middleware.policies.idempotency import Idempotency


@pytest.mark.parametrize("credential", ["principal", "subscription"])
def test_who_is_known_cannot_be_left_out(credential: Literal["principal", "subscription"]) -> None:
    with pytest.raises(ConfigError, match="regardless_of"):
        Idempotency(regardless_of=(credential,))
