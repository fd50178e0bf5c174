"""Structured fields again (RFC 9651): dictionaries and inner lists, as ``Signature-Input`` and ``Content-Digest`` are.

A member is an item with its parameters, or a list of items with parameters of its own. What cannot be read is a
ValueError. Writing a member gives the one text it has, however it was sent.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from apim_middleware._http import fields
from apim_middleware._http.fields import Bare, Item

_INNER = rf"\( *(?:{fields.ITEM}(?: +{fields.ITEM})* *)?\)"  # no run of blanks can be split in two ways
_next_member = re.compile(
    rf"({fields.KEY})(?:=(?:({_INNER})({fields.PARAMETERS})|({fields.BARE})({fields.PARAMETERS}))|({fields.PARAMETERS}))"
).match
_items_within = re.compile(rf"({fields.BARE})({fields.PARAMETERS})").findall
_next_comma = re.compile(r"[ \t]*,[ \t]*").match


class InnerList(NamedTuple):
    """Items between parentheses, and what is said of all of them."""

    items: list[Item]
    parameters: dict[str, Bare]

    def __str__(self) -> str:
        """As it is written (RFC 9651 §4.1.1.1)."""
        return fields.item_parameters(f"({' '.join(fields.item(*each) for each in self.items)})", self.parameters)


Member: TypeAlias = Item | InnerList
"""What a dictionary has under a key."""


def parse_dictionary(text: str) -> dict[str, Member]:
    """The members under their keys (RFC 9651 §4.2.2); a key that comes again has its last value, at its first place."""
    text = text.strip(" ")
    found: dict[str, Member] = {}
    at = 0
    while text:
        member = _next_member(text, at)
        if member is None:
            raise ValueError(f"not a dictionary: something else at character {at}")
        found[member[1]] = _member(member)
        if member.end() == len(text):
            break
        comma = _next_comma(text, member.end())
        if comma is None:
            raise ValueError(f"not a dictionary: no comma at character {member.end()}")
        at = comma.end()
    return found


def write(member: Member) -> str:
    """A member as it is written."""
    return str(member) if isinstance(member, InnerList) else fields.item(*member)


def write_dictionary(members: Mapping[str, Member]) -> str:
    """A whole dictionary as it is written (RFC 9651 §4.1.2)."""
    return ", ".join(_keyed(key, member) for key, member in members.items())


def _keyed(key: str, member: Member) -> str:
    if not isinstance(member, InnerList) and member[0] is True:
        return fields.item_parameters(key, member[1])
    return f"{key}={write(member)}"


def _member(found: re.Match[str]) -> Member:
    _, inner, inner_parameters, bare, parameters, flagged = found.groups()
    if inner is not None:
        return InnerList([_item(*each) for each in _items_within(inner)], fields.parameters(inner_parameters))
    if bare is None:
        return True, fields.parameters(flagged)
    return _item(bare, parameters)


def _item(bare: str, parameters: str) -> Item:
    return fields.bare(bare), fields.parameters(parameters)
