"""Permits in memory: the promises of every store, and that nothing stays behind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.stores.permits import MemoryPermits

from .conformance import PermitsConformance


class TestMemoryPermits(PermitsConformance):
    @pytest.fixture
    def permits(self) -> MemoryPermits:
        return MemoryPermits()


steps = st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(0, 3), st.sampled_from("wxyz")))


@given(steps)
def test_who_is_in_is_always_known_and_nothing_is_kept_of_others(steps: list[tuple[bool, str, int, str]]) -> None:
    permits = MemoryPermits()
    inside: set[tuple[str, str]] = set()
    for enters, key, at_once, holder in steps:
        if not enters:
            permits.release_now(key, holder)
            inside.discard((key, holder))
        else:
            number = sum(each == key for each, _ in inside)
            enters = (key, holder) in inside or number < at_once
            inside |= {(key, holder)} if enters else set()
            number = sum(each == key for each, _ in inside)
            assert permits.acquire_now(key, at_once, holder) == (enters, number)
        assert len(permits) == len({key for key, _ in inside})
