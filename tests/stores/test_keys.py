"""Subscription keys: only digests are kept, two for a subscription, and changes hold at once."""

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.errors import ConfigError
from apim_middleware.identity import Subscription
from apim_middleware.stores.key_text import misfit
from apim_middleware.stores.keys import (
    ISSUER,
    KEY_PATTERN,
    HeldKey,
    KeyRecord,
    Keyring,
    MemoryKeys,
    Slot,
    State,
    key_digest,
    new_key,
)
from apim_middleware.testing import FakeClock

ADA = Subscription(id="ada", product="starter", owner="ada@example.org")
BOB = Subscription(id="bob")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(clock: FakeClock) -> MemoryKeys:
    made = MemoryKeys(clock=clock)
    made.add(ADA)
    return made


def state(keys: MemoryKeys, key: str, clock: FakeClock) -> State | None:
    record = whose(keys, key)
    return None if record is None else record.state_at(clock.now())


def whose(keys: MemoryKeys, key: str) -> KeyRecord | None:
    return keys.find(key_digest(key))


def test_a_new_key_is_long_random_and_safe_everywhere() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"apim_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", key) for key in made)


@pytest.mark.parametrize("prefix", ["apim", "acme_live", "x", "a1_b2_c3"])
def test_a_leak_scanner_finds_every_new_key_in_a_text(prefix: str) -> None:
    key = new_key(prefix)
    text = f'requests.get(url, headers={{"x-api-key": "{key}"}})  # {"a" * 50}'
    assert re.findall(KEY_PATTERN, text) == [key]


def test_the_checksum_is_the_crc_32_in_62_digits() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    key = new_key()
    value = sum(digits.index(digit) * 62**place for place, digit in enumerate(reversed(key[-6:])))
    assert value == zlib.crc32(key[:-7].encode())


@pytest.mark.parametrize("prefix", ["", "_", "a_", "a__b", "A", "ä", "a b", "a-b", "a" * 25])
def test_what_cannot_begin_a_key_is_told(prefix: str) -> None:
    with pytest.raises(ConfigError, match="cannot begin a key"):
        new_key(prefix)
    with pytest.raises(ValueError, match="cannot begin a key"):
        MemoryKeys(prefix=prefix)


@given(st.integers(0, 54), st.integers(0, 127))
def test_a_key_with_one_wrong_character_is_known_to_be_none(place: int, code: int) -> None:
    key = new_key().encode()
    wrong = key[:place] + bytes([code]) + key[place + 1 :]
    assert misfit(("apim",))(wrong) == (wrong != key)


@given(st.binary(max_size=80))
def test_what_was_not_generated_is_looked_up_only_where_it_may_be_a_key(text: bytes) -> None:
    assert not misfit(())(text)
    assert misfit(("apim",))(text)


def test_a_key_of_another_prefix_is_none_where_prefixes_are_given() -> None:
    key = new_key("acme").encode()
    assert not misfit(("apim", "acme"))(key)
    assert misfit(("apim",))(key)
    assert not misfit(())(key)
    assert not misfit(())(key[:-1] + b"!")
    assert misfit(())(new_key().encode()[:-6] + b"aaaaaa")


def test_a_digest_is_the_sha_256_of_the_key() -> None:
    assert key_digest("key") == key_digest(b"key") == hashlib.sha256(b"key").digest()


def test_an_issued_key_is_found(keys: MemoryKeys) -> None:
    record = whose(keys, keys.issue("ada"))
    assert record is not None
    assert (record.subscription, record.state, record.lasting) == (ADA, "active", True)


def test_keys_begin_as_they_are_told_to() -> None:
    keys = MemoryKeys(prefix="acme_live")
    keys.add(ADA)
    assert keys.issue("ada").startswith("acme_live_")


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


def test_a_suspended_subscription_is_found_at_rest_and_resumes(keys: MemoryKeys, clock: FakeClock) -> None:
    key = keys.issue("ada")
    keys.suspend("ada")
    other = keys.issue("ada", "secondary")
    assert [state(keys, each, clock) for each in (key, other)] == ["suspended"] * 2
    keys.resume("ada")
    assert state(keys, key, clock) == "active"


@pytest.mark.parametrize("named", get_args(State))
def test_a_subscription_can_be_in_every_state(keys: MemoryKeys, clock: FakeClock, named: State) -> None:
    key = keys.issue("ada")
    keys.set_state("ada", named)
    assert state(keys, key, clock) == named
    record = whose(keys, key)
    assert record is not None
    assert record.lasting == (named == "active")


def test_there_is_no_seventh_state_and_nothing_changes(keys: MemoryKeys, clock: FakeClock) -> None:
    key = keys.issue("ada")
    with pytest.raises(ValueError, match="no state"):
        keys.set_state("ada", "asleep")  # type: ignore[arg-type]
    assert state(keys, key, clock) == "active"


def test_a_cancelled_subscription_is_still_known(keys: MemoryKeys, clock: FakeClock) -> None:
    key = keys.issue("ada")
    keys.cancel("ada")
    assert state(keys, key, clock) == "cancelled"


def test_a_subscription_expires_at_its_time_and_not_before(keys: MemoryKeys, clock: FakeClock) -> None:
    key = keys.issue("ada")
    keys.expire("ada", clock.now() + 60)
    clock.advance(59.9)
    assert state(keys, key, clock) == "active"
    clock.advance(0.1)
    assert state(keys, key, clock) == "expired"


def test_a_subscription_can_be_expired_now(keys: MemoryKeys, clock: FakeClock) -> None:
    key = keys.issue("ada")
    keys.expire("ada")
    assert state(keys, key, clock) == "expired"


def test_who_was_cancelled_does_not_expire(keys: MemoryKeys, clock: FakeClock) -> None:
    key = keys.issue("ada")
    keys.expire("ada")
    keys.cancel("ada")
    assert state(keys, key, clock) == "cancelled"


# Rotation


def test_a_rotated_key_works_for_the_overlap_and_then_no_more(keys: MemoryKeys, clock: FakeClock) -> None:
    old = keys.issue("ada")
    new = keys.rotate("ada", overlap=60)
    assert [state(keys, each, clock) for each in (old, new)] == ["active"] * 2
    clock.advance(60)
    assert [state(keys, each, clock) for each in (old, new)] == [None, "active"]


def test_without_an_overlap_the_old_key_ends_at_once(keys: MemoryKeys) -> None:
    old = keys.issue("ada")
    keys.issue("ada")
    assert whose(keys, old) is None


def test_rotating_leaves_the_other_slot_alone(keys: MemoryKeys, clock: FakeClock) -> None:
    other = keys.issue("ada", "secondary")
    keys.issue("ada")
    keys.rotate("ada", overlap=60)
    clock.advance(61)
    assert state(keys, other, clock) == "active"


def test_however_often_keys_are_rotated_there_are_four_at_most(keys: MemoryKeys) -> None:
    for _ in range(50):
        keys.rotate("ada")
        keys.rotate("ada", "secondary")
    assert len(keys._records) == len(keys.keyring("ada").keys) == 4


def test_what_has_ended_is_forgotten_at_the_next_change(keys: MemoryKeys, clock: FakeClock) -> None:
    keys.issue("ada")
    keys.rotate("ada", overlap=60)
    clock.advance(61)
    keys.resume("ada")
    assert len(keys._records) == 1


def test_revoking_a_slot_ends_the_key_it_had_replaced_too(keys: MemoryKeys) -> None:
    old = keys.issue("ada")
    new = keys.rotate("ada")
    keys.revoke("ada", "primary")
    assert [whose(keys, key) for key in (old, new)] == [None, None]


def test_a_key_that_exists_can_take_a_slot_over(keys: MemoryKeys, clock: FakeClock) -> None:
    old = keys.issue("ada")
    keys.set_key("ada", "primary", key_digest("one"), overlap=60)
    assert [state(keys, each, clock) for each in (old, "one")] == ["active"] * 2


@pytest.mark.parametrize("overlap", [-1.0, float("nan")])
def test_an_overlap_is_a_time(keys: MemoryKeys, overlap: float) -> None:
    with pytest.raises(ValueError, match="overlap"):
        keys.rotate("ada", overlap=overlap)


def test_a_keyring_survives_its_document(keys: MemoryKeys, clock: FakeClock) -> None:
    keys.issue("ada")
    keys.rotate("ada", overlap=60)
    keys.expire("ada", clock.now() + 1000)
    ring = keys.keyring("ada")
    assert Keyring.read(json.loads(json.dumps(ring.document()))) == ring


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "asleep"},
        {"keys": (HeldKey(slot="third", digest=bytes(32)),)},  # type: ignore[arg-type]
        {"keys": (HeldKey(slot="primary", digest=b"short"),)},
    ],
)
def test_a_keyring_that_cannot_be_is_told(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is no state|neither primary|not the digest"):
        Keyring(subscription=ADA, **wrong)  # type: ignore[arg-type]


def test_a_removed_subscription_takes_its_keys_along(keys: MemoryKeys) -> None:
    key = keys.issue("ada")
    keys.remove("ada")
    assert whose(keys, key) is None
    assert len(keys) == 0


def test_existing_keys_are_added_by_their_digests() -> None:
    keys = MemoryKeys()
    keys.add(ADA, primary=key_digest("one"), secondary=key_digest("two"), state="suspended")
    for key in ("one", "two"):
        record = whose(keys, key)
        assert record is not None
        assert (record.subscription, record.state) == (ADA, "suspended")


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
        lambda keys: keys.cancel("nobody"),
        lambda keys: keys.expire("nobody"),
        lambda keys: keys.rotate("nobody"),
        lambda keys: keys.keyring("nobody"),
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
    shown = f"{keys!r} {record!r} {vars(keys)!r} {keys.keyring('ada')!r}"
    assert key not in shown
    assert repr(record.digest) not in repr(record) + repr(keys.keyring("ada"))
    assert repr(keys) == "<MemoryKeys: 1 subscriptions>"


def test_a_record_knows_the_caller_it_stands_for() -> None:
    principal = KeyRecord(digest=key_digest("x"), subscription=ADA).principal
    assert (principal.subject, principal.issuer) == ("ada", ISSUER)


STEPS = st.tuples(
    st.sampled_from(["add", "issue", "rotate", "revoke", "suspend", "resume", "expire", "remove", "wait"]),
    st.sampled_from(["ada", "bob"]),
    st.sampled_from(["primary", "secondary"]),
)


@given(st.lists(STEPS, max_size=30))
def test_whatever_is_done_a_key_is_found_exactly_as_its_subscription_has_it(steps: list[tuple[str, str, Slot]]) -> None:
    clock = FakeClock()
    keys = MemoryKeys(clock=clock)
    for step, name, slot in steps:
        if step == "wait":
            clock.advance(30)
        elif step == "add":
            keys.add(Subscription(id=name))
        elif name in keys._rings:
            if step in ("issue", "rotate"):
                keys.issue(name, slot, overlap=60 if step == "rotate" else 0)
            elif step == "revoke":
                keys.revoke(name, slot)
            else:
                getattr(keys, step)(name)
    rings = list(keys._rings.values())
    found = {record.digest: record for ring in rings for record in ring.records()}
    assert keys._records == found
    assert all(len(ring.keys) <= 4 for ring in rings)
    assert [Keyring.read(json.loads(json.dumps(ring.document()))) for ring in rings] == rings
