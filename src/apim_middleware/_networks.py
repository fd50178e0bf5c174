"""Networks that a policy's fields name: whom it lets in, and whose word it takes."""

from apim_middleware._config import Configured, several
from apim_middleware._http.addresses import AddressSet, BadNetwork
from apim_middleware._http.forwarded import Trust

_CURE = 'Give addresses ("192.0.2.7"), networks ("10.0.0.0/8") or ranges ("10.0.0.5-10.0.0.99")'


def networks_in(policy: Configured, field: str, texts: str | tuple[str, ...]) -> AddressSet:
    """The networks of a field. Raises ConfigError."""
    try:
        return AddressSet(several(texts))
    except BadNetwork as error:
        problem, text = error.args
        raise policy.mistake(field, f"holds {text!r}, which {problem}", _CURE) from None


def trust_in(policy: Configured, trusted: str | tuple[str, ...], harm: str) -> Trust:
    """Trust in those whom the field ``trusted`` names; ConfigError when they are everybody, which does ``harm``."""
    named = several(trusted)
    networks = networks_in(policy, "trusted", tuple(each for each in named if each != "unix"))
    if networks.everything:
        raise policy.mistake("trusted", harm, "Name the networks your proxies connect from")
    return Trust(networks, unix="unix" in named)
