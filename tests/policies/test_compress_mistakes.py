"""Fields of ``Compress`` that would do nothing are refused while building."""

import pytest

from apim_middleware.errors import ConfigError
from apim_middleware.policies.compress import Compress


def test_there_must_be_types_to_compress() -> None:
    with pytest.raises(ConfigError, match="types"):
        Compress(types=())
