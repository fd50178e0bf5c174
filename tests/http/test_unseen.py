"""Which request fields hygiene keeps from every policy, and what to do about it."""

import pytest

from apim_middleware._http.hygiene import FORWARDING, Hygiene
from apim_middleware._http.unseen import unseen


@pytest.mark.parametrize("name", [*sorted(FORWARDING), b"x-forwarded-anything"])
def test_what_proxies_say_is_set_aside_whatever_the_rules(name: bytes) -> None:
    for scrub in (None, Hygiene().compiled(), Hygiene(strip=(), odd_names="keep").compiled()):
        problem, cure = unseen(name, scrub) or ("", "")
        assert "sets aside" in problem
        assert "TrustedProxies" in cure


@pytest.mark.parametrize(
    ("name", "rules", "cure"),
    [
        (b"x_tenant", Hygiene(), 'odd_names="keep"'),
        (b"x.tenant", Hygiene(odd_names="refuse"), 'odd_names="keep"'),
        (b"x-original-url", Hygiene(), "Use another name"),
        (b"x-tenant", Hygiene(strip=("X-Tenant",)), "Use another name"),
        (b"x_tenant", Hygiene(odd_names="keep"), None),
        (b"x-original-url", Hygiene(strip=()), None),
        (b"x-tenant", Hygiene(), None),
    ],
)
def test_what_is_taken_out_is_a_matter_of_the_rules(name: bytes, rules: Hygiene, cure: str | None) -> None:
    assert unseen(name) is None
    found = unseen(name, rules.compiled())
    assert found is None if cure is None else found is not None and cure in found[1]
