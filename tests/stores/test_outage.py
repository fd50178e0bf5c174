"""Outages are told of when they begin and when they are over."""

import logging

import pytest

from apim_middleware.stores.outage import Outage


@pytest.fixture
def outage(caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage(logging.getLogger("apim_middleware"), "it is away", "it is back")


def test_it_is_told_of_once_and_once_more_when_it_is_over(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for error in ("gone", "still gone"):
        outage.begins(LookupError(error))
    for _ in range(2):
        outage.ends()
    assert [record.message for record in caplog.records] == ["it is away: 'gone'", "it is back"]


def test_the_next_one_is_told_of_too(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        outage.begins(LookupError("gone"))
        outage.ends()
    assert len(caplog.records) == 4


def test_what_an_error_says_stays_on_its_line_and_ends(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.begins(LookupError("a\r\nFORGED" + "x" * 1000))
    assert caplog.messages[0].isprintable()
    assert len(caplog.messages[0]) < 300
