"""Errors as values: they travel between processes, and say what they said."""

import copy
import pickle

import pytest

from apim_middleware.errors import ApimError, ConfigError, Refusal, SubscriptionRefused, VersionConflict

ERRORS = [
    ConfigError("RateLimit", "calls", "0 is no limit", "Give a number of at least 1"),
    ConfigError("RateLimit", "cals", "no such field", "Did you mean calls?"),
    Refusal(429, "rate-limit-exceeded", "Wait.", headers={"retry-after": "1"}),
    SubscriptionRefused("subscription-exists", "There is one already", "Take that"),
    VersionConflict(3),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_is_copied_and_sent_as_it_is(again, error: ApimError) -> None:
    """Those with more to say than one message could not be."""
    other = again(error)
    assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


def test_a_mistake_is_told_in_a_sentence_for_the_problem_and_one_for_the_cure() -> None:
    assert [str(error) for error in ERRORS[:2]] == [
        "RateLimit.calls: 0 is no limit. Give a number of at least 1.",
        "RateLimit.cals: no such field. Did you mean calls?",
    ]
