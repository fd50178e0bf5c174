"""Users are known by salted hashes; what is changed holds at once."""

import base64
import hashlib

import pytest

from apim_middleware.identity import Principal
from apim_middleware.stores.users import ISSUER, Cost, MemoryUsers, Scrypt, UserRecord, hash_password

CHEAP = Cost(ln=4, r=1, p=1)


def users() -> MemoryUsers:
    store = MemoryUsers(cost=CHEAP)
    store.add("ada", "correct horse", scopes="a b", claims={"roles": ("editor",)})
    return store


def test_a_hash_matches_its_password_and_no_other() -> None:
    for cost in (CHEAP, Cost(ln=10, r=8, p=2)):
        scrypt = Scrypt.read(hash_password("p\u00e4ss", cost))
        assert scrypt.cost == cost
        assert scrypt.matches("p\u00e4ss")
        assert not scrypt.matches("pass")
        assert not scrypt.matches("")


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("same", CHEAP) != hash_password("same", CHEAP)


def test_the_usual_cost_is_a_strong_one() -> None:
    """OWASP's password storage cheat sheet: at least N=2^14, r=8, p=5."""
    assert hash_password("x").startswith("$scrypt$ln=14,r=8,p=5$")
    assert Cost().memory < 17 * 2**20


@pytest.mark.parametrize("cost", [(17, 8, 1), (16, 8, 2), (15, 8, 3), (14, 8, 5), (13, 8, 10)])
def test_every_cost_that_is_recommended_may_be_paid(cost: tuple[int, int, int]) -> None:
    """OWASP's password storage cheat sheet."""
    text = "$scrypt$ln={},r={},p={}$c2FsdHNhbHQ$".format(*cost)
    assert Scrypt.read(text + "A" * 43).cost == cost


def test_the_memory_that_is_asked_for_is_enough() -> None:
    for cost in (Cost(17, 8, 1), Cost(1, 1, 1), Cost(4, 1, 32)):
        assert hash_password("x", cost)


def test_a_hash_made_elsewhere_counts() -> None:
    """RFC 7914 section 12, the third vector, in the text passlib writes."""
    digest = hashlib.scrypt(b"pleaseletmein", salt=b"SodiumChloride", n=16384, r=8, p=1, dklen=64)
    assert digest.hex().startswith("7023bdcb3afd7348461c06cd81fd38eb")
    salt, text = (base64.b64encode(each).decode().rstrip("=") for each in (b"SodiumChloride", digest))
    assert Scrypt.read(f"$scrypt$ln=14,r=8,p=1${salt}${text}").matches("pleaseletmein")


def test_a_password_is_the_same_however_it_was_typed() -> None:
    assert Scrypt.read(hash_password("u\u0308", CHEAP)).matches("\u00fc")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "correct horse",
        "$scrypt$ln=14,r=8,p=5$c2FsdHNhbHQ$",
        "$scrypt$ln=14,r=8,p=5$c2FsdA$" + "A" * 43,
        "$scrypt$ln=14,r=8,p=5$c2FsdHNhbHQ$AAAA",
        "$scrypt$ln=14,r=8,p=5$c2FsdHNhbHQ$" + "A" * 41,
        "$scrypt$ln=0,r=8,p=5$c2FsdHNhbHQ$" + "A" * 43,
        "$scrypt$ln=14,r=0,p=5$c2FsdHNhbHQ$" + "A" * 43,
        "$scrypt$ln=20,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$scrypt$ln=14,r=8,p=99$c2FsdHNhbHQ$" + "A" * 43,
        "$scrypt$ln=99,r=99,p=99$c2FsdHNhbHQ$" + "A" * 43,
        "$2b$12$" + "A" * 53,
    ],
)
def test_what_is_no_hash_or_costs_too_much_is_an_error_that_does_not_show_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"scrypt|padded|base64|characters") as caught:
        UserRecord(name="ada", password=text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("password", ["", "a\0b", "a\nb", "\x9f"])
def test_a_password_nobody_could_send_is_an_error(password: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        hash_password(password, CHEAP)


def test_a_user_is_found_with_what_is_granted() -> None:
    record = users().find("ada")
    assert record is not None
    assert record.principal == Principal(
        subject="ada", issuer=ISSUER, scopes=frozenset({"a", "b"}), claims={"roles": ("editor",)}
    )
    assert users().find("Ada") is None


def test_names_are_the_same_however_they_were_typed() -> None:
    store = users()
    store.add("Zoe\u0308", "x")
    assert store.find("Zo\u00eb") is not None
    store.remove("Zoe\u0308")
    assert len(store) == 1


@pytest.mark.parametrize("name", ["", "a:b", "a\nb"])
def test_a_name_nobody_could_send_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        users().add(name, "x")


def test_either_a_password_or_a_hash_is_given() -> None:
    store = users()
    store.add("bob", hashed=hash_password("x", CHEAP))
    for given in ({}, {"password": "x", "hashed": hash_password("x", CHEAP)}):
        with pytest.raises(ValueError, match="either"):
            store.add("eve", **given)  # type: ignore[arg-type]
    assert len(store) == 2


def test_changes_hold_at_once() -> None:
    store = users()
    before = store.find("ada")
    store.change_password("ada", "battery staple")
    after = store.find("ada")
    assert before is not None
    assert after is not None
    assert after.scopes == before.scopes
    assert after.scrypt.matches("battery staple")
    assert not after.scrypt.matches("correct horse")
    store.suspend("ada")
    assert [each.active for each in [store.find("ada")] if each] == [False]
    store.resume("ada")
    assert [each.active for each in [store.find("ada")] if each] == [True]
    store.remove("ada")
    assert store.find("ada") is None


def test_a_user_who_is_not_there_cannot_be_changed() -> None:
    for change in (
        lambda store: store.change_password("eve", "x"),
        lambda store: store.suspend("eve"),
        lambda store: store.resume("eve"),
        lambda store: store.remove("eve"),
    ):
        with pytest.raises(LookupError):
            change(users())


def test_no_hash_is_in_a_repr() -> None:
    store = users()
    record = store.find("ada")
    assert record is not None
    assert "scrypt" not in repr(record) + repr(store) + repr(record.principal)
