"""Subscription keys: only digests are kept, two for a subscription, and changes hold at once."""

import hashlib
import re
from collections.abc import Callable

import pytest

from apim_middleware.identity import Subscription
from apim_middleware.stores.keys import ISSUER, KeyRecord, MemoryKeys, key_digest, new_key

ADA = Subscription(id="ada", product="starter", owner="ada@example.org")
BOB = Subscription(id="bob")


@pytest.fixture
def keys() -> MemoryKeys:
    made = MemoryKeys()
    made.add(ADA)
    return made


def whose(keys: MemoryKeys, key: str) -> KeyRecord | None:
    return keys.find(key_digest(key))


def test_a_new_key_is_long_random_and_safe_everywhere() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", key) for key in made)


def test_a_digest_is_the_sha_256_of_the_key() -> None:
    assert key_digest("key") == key_digest(b"key") == hashlib.sha256(b"key").digest()


def test_an_issued_key_is_found(keys: MemoryKeys) -> None:
    record = whose(keys, keys.issue("ada"))
    assert record is not None
    assert (record.subscription, record.active) == (ADA, True)


def test_an_unknown_key_is_not_found(keys: MemoryKeys) -> None:
    keys.issue("ada")
    assert whose(keys, new_key()) is None
    assert keys.find(b"") is None


def test_two_keys_live_side_by_side(keys: MemoryKeys) -> None:
    primary, secondary = keys.issue("ada"), keys.issue("ada", "secondary")
    assert whose(keys, primary) is not None
    assert whose(keys, secondary) is not None


def test_issuing_again_ends_the_key_it_replaces_and_no_other(keys: MemoryKeys) -> None:
    primary, secondary = keys.issue("ada"), keys.issue("ada", "secondary")
    again = keys.issue("ada")
    assert whose(keys, primary) is None
    assert whose(keys, secondary) is not None
    assert whose(keys, again) is not None


def test_a_revoked_key_ends_and_the_other_lives(keys: MemoryKeys) -> None:
    primary, secondary = keys.issue("ada"), keys.issue("ada", "secondary")
    keys.revoke("ada", "primary")
    assert whose(keys, primary) is None
    assert whose(keys, secondary) is not None


def test_a_suspended_subscription_is_found_at_rest_and_resumes(keys: MemoryKeys) -> None:
    key = keys.issue("ada")
    keys.suspend("ada")
    assert [each.active for each in (whose(keys, key), whose(keys, keys.issue("ada", "secondary"))) if each] == [
        False
    ] * 2
    keys.resume("ada")
    record = whose(keys, key)
    assert record is not None
    assert record.active


def test_a_removed_subscription_takes_its_keys_along(keys: MemoryKeys) -> None:
    key = keys.issue("ada")
    keys.remove("ada")
    assert whose(keys, key) is None
    assert len(keys) == 0


def test_existing_keys_are_added_by_their_digests() -> None:
    keys = MemoryKeys()
    keys.add(ADA, primary=key_digest("one"), secondary=key_digest("two"), active=False)
    for key in ("one", "two"):
        record = whose(keys, key)
        assert record is not None
        assert (record.subscription, record.active) == (ADA, False)


def test_adding_again_replaces_subscription_and_keys(keys: MemoryKeys) -> None:
    key = keys.issue("ada")
    keys.add(Subscription(id="ada", product="gold"), primary=key_digest("one"))
    assert whose(keys, key) is None
    record = whose(keys, "one")
    assert record is not None
    assert record.subscription.product == "gold"
    assert len(keys) == 1


def test_a_key_of_another_subscription_is_refused_and_nothing_changes(keys: MemoryKeys) -> None:
    key = keys.issue("ada")
    with pytest.raises(ValueError, match="another subscription"):
        keys.add(BOB, primary=key_digest("one"), secondary=key_digest(key))
    assert whose(keys, "one") is None
    record = whose(keys, key)
    assert record is not None
    assert record.subscription == ADA


@pytest.mark.parametrize("digest", [b"", b"key", b"x" * 31, b"x" * 33, "x" * 32, hashlib.sha256(b"").hexdigest()])
def test_what_is_no_digest_is_refused(keys: MemoryKeys, digest: bytes) -> None:
    with pytest.raises(ValueError, match="digest"):
        keys.add(BOB, primary=digest)


def test_two_equal_keys_are_refused(keys: MemoryKeys) -> None:
    with pytest.raises(ValueError, match="the same"):
        keys.add(BOB, primary=key_digest("one"), secondary=key_digest("one"))


def test_there_is_no_third_key(keys: MemoryKeys) -> None:
    with pytest.raises(ValueError, match="neither primary nor secondary"):
        keys.issue("ada", "tertiary")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "act",
    [
        lambda keys: keys.issue("nobody"),
        lambda keys: keys.revoke("nobody", "primary"),
        lambda keys: keys.suspend("nobody"),
        lambda keys: keys.resume("nobody"),
        lambda keys: keys.remove("nobody"),
    ],
)
def test_an_unknown_subscription_is_told(keys: MemoryKeys, act: Callable[[MemoryKeys], object]) -> None:
    with pytest.raises(LookupError, match="nobody"):
        act(keys)


def test_no_key_and_no_digest_is_kept_where_it_could_be_seen(keys: MemoryKeys) -> None:
    key = keys.issue("ada")
    record = whose(keys, key)
    assert record is not None
    shown = f"{keys!r} {record!r} {vars(keys)!r}"
    assert key not in shown
    assert repr(record.digest) not in repr(record)
    assert repr(keys) == "<MemoryKeys: 1 subscriptions>"


def test_a_record_knows_the_caller_it_stands_for() -> None:
    principal = KeyRecord(digest=key_digest("x"), subscription=ADA).principal
    assert (principal.subject, principal.issuer) == ("ada", ISSUER)
