"""What RFC 9111 and its neighbours demand of a shared cache, row by row: requests, answers of the app, what must come.

Each row is a story told to a cache: what is asked, what the app would say, and whether the app must be asked (``new``)
or must not (``kept``), or is asked whether what is kept still holds (``valid``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import RawHeaders, Receive, Scope, Send

from .caching import Elsewhere

pytestmark = pytest.mark.anyio

START = 1_800_000_000.0
Lines = dict[str, str | list[str]]


@dataclass(frozen=True)
class Says:
    """What the app says, if it is asked."""

    headers: Lines = field(default_factory=dict)
    status: int = 200
    body: bytes | None = None
    breaks_off: bool = False


@dataclass(frozen=True)
class Step:
    """One request, and what must come of it."""

    gets: str
    asks: Lines = field(default_factory=dict)
    says: Says | None = None
    after: float = 0.0
    method: str = "GET"
    path: str = "/"
    query: str = ""
    host: str = "testserver"
    scheme: str = "http"
    status: int | None = None
    body: bytes | None = None
    has: Lines = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    app_gets: Lines = field(default_factory=dict)


def date(seconds: float) -> str:
    """The moment so many seconds after the beginning."""
    return datetime.fromtimestamp(START + seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def lines(given: Lines) -> RawHeaders:
    return [
        (name.lower().encode(), value.encode())
        for name, values in given.items()
        for value in ([values] if isinstance(values, str) else values)
    ]


def cc(value: str, **more: str) -> Says:
    """A 200 with this Cache-Control, and other fields."""
    return Says({"cache-control": value, **{name.replace("_", "-"): each for name, each in more.items()}})


def fields(**more: str) -> Says:
    return Says({name.replace("_", "-"): each for name, each in more.items()})


def kept(says: Says, **more: Any) -> list[Step]:
    """The second request is answered with what the first got."""
    return [Step("new", says=says), Step("kept", **more)]


def unkept(says: Says, **more: Any) -> list[Step]:
    """The second request is the app's to answer, as the first was."""
    return [Step("new", says=says), Step("new", **more)]


def after(seconds: float, gets: str, says: Says, **more: Any) -> list[Step]:
    return [Step("new", says=says), Step(gets, after=seconds, **more)]


FRESH = cc("max-age=60")
BARE = {204: b""}  # a status without a body
ETAG = cc("max-age=60", etag='"one"')
CHANGED = cc("max-age=60", last_modified=date(-1000))
ANEW = {"cache-control": "no-cache"}
IF_ERROR = {"cache-control": "stale-if-error=600"}
SAME = Says({"cache-control": "max-age=60", "etag": '"one"'}, status=304, body=b"")

STORING = {
    "§3 a response that says for how long": kept(FRESH),
    "§3 s-maxage": kept(cc("s-maxage=60")),
    "§3 Expires": kept(fields(expires=date(60))),
    "§3 only a method that is understood": [
        Step("new", says=FRESH, method="REPORT"), Step("new", method="REPORT"),
    ],
    "§3 POST, though it says so": [
        Step("new", says=cc("public, max-age=60", content_location="/"), method="POST"),
        Step("new"),
    ],
    "§3 a status that is final": kept(Says({"cache-control": "max-age=60"}, 404), status=404),
    "§3 a status that is not known": unkept(Says({"cache-control": "max-age=60"}, 299)),
    **{
        f"§3 a redirection that says for how long, {status}": kept(
            Says({"cache-control": "max-age=60", "location": "/b"}, status), status=status, has={"location": "/b"}
        )
        for status in (302, 303, 307)
    },
    "§3 a redirection that does not": unkept(Says({"location": "/there", "etag": '"one"'}, 302), status=302),
    "§3 a redirection that is not fresh": unkept(
        Says({"location": "/there", "etag": '"one"', "cache-control": "max-age=0"}, 302), status=302
    ),
    "§3 a redirection that was fresh before": unkept(
        Says({"location": "/there", "expires": date(-10)}, 302), status=302
    ),
    "§3 a redirection to the login is not for who has logged in": [
        Step("new", says=Says({"cache-control": "max-age=60", "location": "/login"}, 302), status=302),
        Step("new", {"cookie": "session=1"}, Says()),
    ],
    "§3 a redirection that is to be confirmed each time": unkept(
        Says({"location": "/there", "etag": '"one"', "cache-control": "no-cache, max-age=60"}, 302), status=302
    ),
    "§3 a redirection that is to be confirmed": unkept(
        Says({"location": "/there", "etag": '"one"', "cache-control": "no-cache"}, 302), status=302
    ),
    **{
        f"§3 an error that may lie in what no key covers, as a choice of ours, {status}": unkept(
            Says({"cache-control": "max-age=60"}, status), status=status
        )
        for status in (400, 401, 403, 413, 429, 431, 500, 503)
    },
    "§3 no-store": unkept(cc("no-store, max-age=60")),
    "§3 no-store in any case and order": unkept(cc("max-age=60, NO-STORE")),
    "§3 no-store among unknown ones": unkept(cc('max-age=60, a="no-cache", no-store')),
    "§3 private": unkept(cc("private, max-age=60")),
    "§3 private with s-maxage": unkept(cc("private, s-maxage=60")),
    "§3 nothing that says for how long": unkept(Says()),
    "§3 public alone": unkept(cc("public")),
    **{
        f"§3 a status that is cacheable by definition, {status}": kept(
            Says({"cache-control": "max-age=60"}, status, BARE.get(status)), status=status
        )
        for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501)
    },
    **{
        f"§3 and that says it is over, {status}": unkept(
            Says({"expires": date(-10), "last-modified": date(-1000), "date": date(0)}, status, BARE.get(status)),
            status=status,
        )
        for status in (203, 204, 301, 308, 404, 410)
    },
    "§3 what is fresh stands when a newer answer may not be kept": [
        Step("new", says=FRESH), Step("new", ANEW, cc("no-store")), Step("kept", body=b"answer 1"),
    ],
    "§5.2.2.3 must-understand, and it is": kept(cc("no-store, must-understand, max-age=60")),
    "§5.2.2.3 must-understand takes away no other word": unkept(cc("private, no-store, must-understand, max-age=60")),
    "§3 a validator alone": unkept(fields(etag='"one"', last_modified=date(-1000))),
    "§3.1 fields of the connection": kept(
        cc("max-age=60", connection="x-hop", x_hop="1", keep_alive="5", x_end="1"),
        lacks=("x-hop", "keep-alive", "connection"), has={"x-end": "1"},
    ),
    **{
        f"§3.1 {name} is the connection's": kept(cc("max-age=60", **{name: "x"}), lacks=(name,))
        for name in (
            "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
            "proxy-connection", "te", "transfer-encoding", "upgrade",
        )
    },
    **{
        f"§3.1 {name} is the response's": kept(cc("max-age=60", **{name: value}), has={name: value})
        for name, value in {
            "content-encoding": "x-other", "content-location": "/bar", "content-md5": "N7UdGUp1E+RbVvZSTy1R8g==",
            "content-disposition": "attachment", "content-language": "de", "content-range": "x 0-1/2",
            "content-security-policy": "default-src 'self'", "content-type": "text/plain;charset=utf-8",
            "clear-site-data": '"cache"', "etag": '"one"', "expires": date(-5), "last-modified": date(-5),
            "set-cookie2": "a=b", "x-frame-options": "deny", "date": date(0), "warning": "199 - x",
        }.items()
    },
    "§3.1 private for a field": kept(
        cc('max-age=60, private="x-a"', x_a="1", x_b="2"), lacks=("x-a",), has={"x-b": "2"},
    ),
    "§3.1 no-cache for a field": kept(cc('max-age=60, no-cache="x-a"', x_a="1"), lacks=("x-a",)),
    "§3.1 no-cache for two fields": kept(
        cc('max-age=60, no-cache="x-a, X-B"', x_a="1", x_b="2", x_c="3"), lacks=("x-a", "x-b"), has={"x-c": "3"},
    ),
    "§3.1 fields nobody knows": kept(cc("max-age=60", x_unknown="a, b"), has={"x-unknown": "a, b"}),
    "§3.3 half a response": unkept(Says({"cache-control": "max-age=60"}, breaks_off=True)),
    "§3.3 less than it announces": unkept(cc("max-age=60", content_length="500")),
    "§3.3 a part": unkept(Says({"cache-control": "max-age=60", "content-range": "bytes 0-3/9"}, 206)),
    "§3.5 Authorization": [
        Step("new", {"authorization": "a"}, FRESH), Step("new", {"authorization": "a"}), Step("new"),
    ],
    "§3.5 Authorization and public": [Step("new", {"authorization": "a"}, cc("public, max-age=60")), Step("kept")],
    "§3.5 Authorization and s-maxage": [Step("new", {"authorization": "a"}, cc("s-maxage=60")), Step("kept")],
    "§3.5 Authorization and must-revalidate": [
        Step("new", {"authorization": "a"}, cc("max-age=60, must-revalidate")), Step("kept"),
    ],
    "§3.5 Authorization and proxy-revalidate": [
        Step("new", {"authorization": "a"}, cc("max-age=60, proxy-revalidate")), Step("new"),
    ],
    "§3.5 no Authorization, and then one": kept(FRESH, asks={"authorization": "a"}),
    "§3 no cookie, and then one": kept(FRESH, asks={"cookie": "a=b"}),
    "§3.5 Authorization, no-store and public": [
        Step("new", {"authorization": "a"}, cc("public, no-store, max-age=60")), Step("new"),
    ],
    "§7.3 Set-Cookie, as a choice of ours": unkept(cc("public, max-age=60", set_cookie="a=b")),
}  # fmt: skip

KEYS = {
    "§2 another path": [Step("new", says=FRESH), Step("new", path="/other"), Step("kept")],
    "§2 another query": [Step("new", says=FRESH), Step("new", query="a=1"), Step("kept")],
    "§2 the same query": [*kept(FRESH), Step("new", query="a=1"), Step("kept", query="a=1")],
    "§2 another host": [Step("new", says=FRESH), Step("new", host="other"), Step("kept")],
    "§2 another scheme": [Step("new", says=FRESH), Step("new", scheme="https"), Step("kept")],
    "§2 HEAD from GET": kept(FRESH, method="HEAD", body=b""),
    "§2 GET not from HEAD": [Step("new", says=FRESH, method="HEAD", body=b""), Step("new")],
    "§4.1 Vary and the same": [
        Step("new", {"foo": "1"}, cc("max-age=60", vary="Foo")), Step("kept", {"foo": "1"}),
    ],
    "§4.1 Vary and another": [
        Step("new", {"foo": "1"}, cc("max-age=60", vary="Foo")), Step("new", {"foo": "2"}), Step("kept", {"foo": "1"}),
    ],
    "§4.1 Vary and none": [Step("new", {"foo": "1"}, cc("max-age=60", vary="Foo")), Step("new")],
    "§4.1 Vary and none both times": kept(cc("max-age=60", vary="Foo")),
    "§4.1 Vary on two": [
        Step("new", {"foo": "1", "bar": "a"}, cc("max-age=60", vary="Foo, Bar")),
        Step("new", {"foo": "1", "bar": "b"}),
        Step("kept", {"foo": "1", "bar": "a"}),
    ],
    "§4.1 Vary on several lines": [
        Step("new", {"foo": "1", "bar": "a"}, Says({"cache-control": "max-age=60", "vary": ["Foo", "Bar"]})),
        Step("new", {"foo": "1", "bar": "b"}),
    ],
    **{
        f"§4.1 Vary star, {vary}": unkept(Says({"cache-control": "max-age=60", "vary": vary}))
        for vary in ("*", "Foo, *", "*, Foo", "*, *", ", *", ["*", "*"], ["", "*"], ["Foo", "*"])
    },
    "§4.1 Vary on three": [
        Step("new", {"foo": "1", "bar": "a", "baz": "x"}, cc("max-age=60", vary="Foo, Bar, Baz")),
        Step("kept", {"baz": "x", "bar": "a", "foo": "1"}),
        Step("new", {"foo": "1", "baz": "x", "bar": "ab"}),
        Step("new", {"foo": "1", "baz": "x"}),
    ],
    "§4.1 Vary on three, and one is not there both times": [
        Step("new", {"foo": "1", "baz": "x"}, cc("max-age=60", vary="Foo, Bar, Baz")),
        Step("kept", {"foo": "1", "baz": "x"}),
        Step("new", {"foo": "1", "baz": "x", "bar": ""}),
    ],
    "§4.1 what Vary does not name": [
        Step("new", {"foo": "1", "other": "2"}, cc("max-age=60", vary="Foo")),
        Step("kept", {"foo": "1", "other": "3"}),
    ],
    "§4.1 two variants stand beside each other": [
        Step("new", {"foo": "1"}, cc("max-age=60", vary="Foo")), Step("new", {"foo": "2"}),
        Step("kept", {"foo": "1"}, body=b"answer 1"), Step("kept", {"foo": "2"}, body=b"answer 2"),
    ],
    "§4.1 languages are compared without case and blanks": [
        Step("new", {"accept-language": "en, de;q=0.5"}, cc("max-age=60", vary="Accept-Language")),
        Step("kept", {"accept-language": " eN ,  De ; q=0.5"}),
    ],
    "§4.1 the order of languages may be a wish, as a choice of ours": [
        Step("new", {"accept-language": "en, de"}, cc("max-age=60", vary="Accept-Language")),
        Step("new", {"accept-language": "de, en"}),
    ],
    "§4.1 blanks within a field nobody knows may mean something": [
        Step("new", {"foo": "1,2"}, cc("max-age=60", vary="Foo")), Step("new", {"foo": "1, 2"}),
    ],
    "§4.1 blanks and lines mean nothing": [
        Step("new", {"foo": "1, 2"}, cc("max-age=60", vary="Foo")), Step("kept", {"foo": ["1", "2"]}),
    ],
    "§4.1 the order of codings means nothing": [
        Step("new", {"accept-encoding": "gzip, br"}, cc("max-age=60", vary="Accept-Encoding")),
        Step("kept", {"accept-encoding": "br,gzip"}),
    ],
}  # fmt: skip

FRESHNESS = {
    "§4.2 fresh to the end": after(59, "kept", FRESH),
    "§4.2 stale from then on": after(60, "new", FRESH),
    "§4.2.1 s-maxage before max-age": after(10, "kept", cc("max-age=1, s-maxage=60")),
    "§4.2.1 s-maxage before max-age, shorter": after(10, "new", cc("max-age=60, s-maxage=1")),
    "§4.2.1 max-age before Expires": after(10, "kept", cc("max-age=60", expires=date(-10))),
    "§4.2.1 max-age of 0 before Expires": after(0, "new", cc("max-age=0", expires=date(1000))),
    "§4.2.1 Expires less Date": after(50, "kept", fields(expires=date(60), date=date(0))),
    "§4.2.1 max-age said twice and differently": unkept(cc("max-age=60, max-age=3600")),
    "§4.2.1 max-age that is none": unkept(cc("max-age=abc")),
    "§4.2.1 max-age below 0": unkept(cc("max-age=-60")),
    "§4.2.1 max-age in quotation marks": kept(cc('max-age="60"')),
    "§4.2.1 s-maxage before max-age and Expires that are over": after(
        10, "kept", cc("max-age=0, s-maxage=60", expires=date(-10))
    ),
    "§4.2.1 s-maxage on a line of its own": after(10, "new", Says({"cache-control": ["max-age=60", "s-maxage=1"]})),
    "§4.2.1 max-age before Expires that is none": after(10, "kept", cc("max-age=60", expires="0")),
    "§4.2.1 max-age said on two lines and differently": unkept(Says({"cache-control": ["max-age=60", "max-age=3600"]})),
    "§4.2.1 max-age said twice and alike": kept(cc("max-age=60, max-age=60")),
    **{
        f"§5.2 directives, {value}": after(10, gets, cc(value))
        for value, gets in {
            "MaX-aGe=60": "kept",
            "foobar, max-age=60": "kept",
            "max-age=0060": "kept",
            "max-age=2147483647": "kept",
            "max-age=2147483648": "kept",
            "max-age=2147483649": "kept",
            "max-age=99999999999": "kept",
            "max-age='60'": "new",
            "max-age=60.0": "new",
            "max-age=60.5": "new",
            "max-age=a60": "new",
            "max-age=60a": "new",
            "max-age =60": "new",
            "max-age= 60": "new",
            "max-age": "new",
            "max-age=": "new",
            'a="max-age=60", max-age=1': "new",
            'max-age=1, a="max-age=60"': "new",
            'a="no-store", max-age=60': "kept",
            'a=",max-age=1,", max-age=60': "kept",
        }.items()
    },
    "§4.2.2 a guess only when asked": unkept(fields(last_modified=date(-10_000))),
    "§1.2.2 a time beyond all numbers": kept(cc("max-age=99999999999999999999")),
    "§4.2.3 Age counts": [Step("new", says=cc("max-age=60", age="50")), Step("kept", after=5), Step("new", after=6)],
    "§4.2.3 Age beyond": unkept(cc("max-age=60", age="61")),
    "§4.2.3 Age that is none": kept(cc("max-age=60", age="abc")),
    **{
        f"§5.1 Age, {value}": after(10, gets, Says({"cache-control": "max-age=60", "date": date(0), "age": value}))
        for value, gets in {
            "-70": "kept",
            "70.0": "kept",
            "70 ": "new",
            "2147483647": "new",
            "2147483648": "new",
            "2147483649": "new",
            "99999999999": "new",
            "70, 0": "new",
            "0, 70": "kept",
            "0, 0": "kept",
            "": "kept",
            "70;a=b": "kept",
        }.items()
    },
    "§5.1 Age on two lines, and the first counts": after(
        10, "new", Says({"cache-control": "max-age=60", "age": ["70", "0"]})
    ),
    "§5.1 Age on two lines, and the second does not": after(
        10, "kept", Says({"cache-control": "max-age=60", "age": ["0", "70"]}), has={"age": "10"}
    ),
    "§5.1 Age with Expires": after(10, "kept", fields(expires=date(60), date=date(0), age="30"), has={"age": "40"}),
    "§4.2.3 Age beyond Expires less Date, which is slow": unkept(fields(date=date(-10), expires=date(10), age="25")),
    "§4.2.3 Age beyond Expires less Date, which is fast": unkept(fields(date=date(10), expires=date(20), age="15")),
    "RFC 9110 §6.6.1 Date stays what it was": after(10, "kept", cc("max-age=60", date=date(0)), has={"date": date(0)}),
    "§4.2.3 Date in the past counts": unkept(cc("max-age=60", date=date(-61))),
    "§5.1 Age is told": after(17, "kept", FRESH, has={"age": "17"}),
    "§5.1 Age is told once": after(7, "kept", cc("max-age=60", age="10"), has={"age": "17"}),
    "§5.3 Expires that is none": unkept(fields(expires="0")),
    "§5.3 Expires in the past": unkept(fields(expires=date(-10), date=date(0))),
    "§5.3 Expires now": unkept(fields(expires=date(0), date=date(0))),
    "§5.3 Expires before Date, both to come": unkept(fields(expires=date(300), date=date(400))),
    "§5.3 Expires and a Date that is none": kept(fields(expires=date(60), date="foo")),
    "§5.3 Expires is left as it is": after(10, "kept", fields(expires=date(60)), has={"expires": date(60)}),
    **{
        f"§5.3 Expires, {value}": after(10, gets, fields(expires=value, date=date(0)))
        for value, gets in {
            "Tue, 19 Jan 2038 14:14:08 GMT": "kept",
            "Sun, 21 Nov 2286 04:46:39 GMT": "kept",
            "Thursday, 18-Aug-50 02:01:18 GMT": "kept",
            "Thu Aug 18 02:01:18 2050": "kept",
            "THU, 18 Aug 2050 02:01:18 GMT": "kept",
            "Thu, 18 AUG 2050 02:01:18 GMT": "kept",
            "Thu, 18 Aug 2050 02:01:18 gMT": "kept",
            "Thu, 18 Aug 2050 02:01:18 UTC": "new",
            "Thu, 18 Aug 2050 02:01:18 AEST": "new",
            "Thu, 18 Aug 50 02:01:18 GMT": "new",
            "Thu 18 Aug 2050 02:01:18 GMT": "new",
            "Thu, 18  Aug  2050 02:01:18 GMT": "new",
            "Thu, 18-Aug-2050 02:01:18 GMT": "new",
            "Thu, 18 Aug 2050 02.01.18 GMT": "new",
            "Thu, 18 Aug 2050 2:01:18 GMT": "new",
            "2050-08-18T02:01:18Z": "new",
            "2524608000": "new",
            "-1": "new",
        }.items()
    },
    "§5.3 two Expires that differ": unkept(Says({"expires": [date(60), date(90)]})),
    "RFC 9213 a field for us": after(100, "kept", cc("max-age=60", cdn_cache_control="max-age=600")),
    "RFC 9213 no-store for others": kept(cc("no-store", cdn_cache_control="max-age=600")),
    "RFC 9213 no-store for us": unkept(cc("max-age=60", cdn_cache_control="no-store")),
    "RFC 9213 Expires means nothing then": unkept(fields(expires=date(600), cdn_cache_control="max-age=0")),
    "RFC 9213 a mistake, and it is none": after(100, "new", cc("max-age=60", cdn_cache_control="max-age = 600")),
    "RFC 9213 empty, and it is none": kept(cc("max-age=60", cdn_cache_control="")),
    "RFC 9213 a value of another kind": unkept(cc("max-age=60", cdn_cache_control='max-age="600"')),
    "RFC 9213 Age counts": after(10, "new", fields(cdn_cache_control="max-age=60", date=date(0), age="55")),
    "RFC 9213 before Expires that is over": after(
        10, "kept", fields(cdn_cache_control="max-age=60", expires=date(-10), date=date(0))
    ),
    "RFC 9213 before Expires that is none": after(10, "kept", fields(cdn_cache_control="max-age=60", expires="0")),
    "RFC 9213 shorter than for others": after(10, "new", cc("max-age=600", cdn_cache_control="max-age=1")),
    "RFC 9213 private for us": unkept(cc("max-age=60", cdn_cache_control="private")),
    "RFC 9213 no-cache for us": unkept(cc("max-age=60", cdn_cache_control="no-cache")),
    "RFC 9213 a word nobody knows": kept(fields(cdn_cache_control="foobar, max-age=60")),
    "RFC 9213 a time beyond all numbers": kept(fields(cdn_cache_control="max-age=99999999999")),
    "RFC 9213 a key in capitals, and it is none": unkept(fields(cdn_cache_control="MaX-aGe=60")),
    "RFC 9213 a member of no kind, and it is none": unkept(cc("no-store", cdn_cache_control="max-age=60, &&&&&")),
    "RFC 9213 it is passed on": kept(
        cc("max-age=60", cdn_cache_control="max-age=60"), has={"cdn-cache-control": "max-age=60"}
    ),
    "RFC 9213 parameters are passed over": after(
        100, "kept", cc("max-age=6", cdn_cache_control="max-age=600;a=b, c=d")
    ),
}

ASKING = {
    "§5.2.1.1 max-age": after(10, "new", FRESH, asks={"cache-control": "max-age=9"}),
    "§5.2.1.1 max-age enough": after(10, "kept", FRESH, asks={"cache-control": "max-age=10"}),
    "§5.2.1.1 max-age of 0": after(1, "new", FRESH, asks={"cache-control": "max-age=0"}),
    "§5.2.1.1 max-age counts Age": after(0, "new", cc("max-age=60", age="30"), asks={"cache-control": "max-age=20"}),
    "§5.2.1.3 min-fresh counts Age": after(
        0, "new", cc("max-age=60", age="30"), asks={"cache-control": "min-fresh=40"}
    ),
    "§5.2.1.2 max-stale": after(70, "kept", FRESH, asks={"cache-control": "max-stale=20"}),
    "§5.2.1.2 max-stale, however much": after(70, "kept", FRESH, asks={"cache-control": "max-stale"}),
    "§5.2.1.2 max-stale too little": after(70, "new", FRESH, asks={"cache-control": "max-stale=5"}),
    "§5.2.1.3 min-fresh": after(10, "new", FRESH, asks={"cache-control": "min-fresh=51"}),
    "§5.2.1.3 min-fresh enough": after(10, "kept", FRESH, asks={"cache-control": "min-fresh=50"}),
    "§5.2.1.4 no-cache": after(1, "new", FRESH, asks={"cache-control": "no-cache"}),
    "§5.2.1.4 no-cache asks whether it holds": [
        Step("new", says=ETAG),
        Step("valid", {"cache-control": "no-cache"}, SAME),
    ],
    "§5.2.1.4 no-cache asks whether it holds, by its date": [
        Step("new", says=CHANGED),
        Step("valid", {"cache-control": "no-cache"}, Says({}, 304, b""), app_gets={"if-modified-since": date(-1000)}),
    ],
    "§5.2.1.5 no-store forbids nothing that is kept": after(1, "kept", FRESH, asks={"cache-control": "no-store"}),
    "§5.2.1.5 no-store": [Step("new", {"cache-control": "no-store"}, FRESH), Step("new")],
    "§5.2.1.7 only-if-cached": after(1, "kept", FRESH, asks={"cache-control": "only-if-cached"}),
    "§5.2.1.7 only-if-cached, and nothing is": [
        Step("refused", {"cache-control": "only-if-cached"}, FRESH, status=504),
    ],
    "§5.2.1.7 only-if-cached, and it is stale": after(
        61, "refused", FRESH, asks={"cache-control": "only-if-cached"}, status=504
    ),
    "§5.4 Pragma: no-cache": after(1, "new", FRESH, asks={"pragma": "no-cache"}),
    "§5.4 Pragma beside Cache-Control": after(1, "kept", FRESH, asks={"pragma": "no-cache", "cache-control": "a"}),
    "§5.4 Pragma with a word nobody knows": after(1, "kept", FRESH, asks={"pragma": "foo"}),
    "§5.4 Pragma of a response means nothing beside Cache-Control": kept(cc("max-age=60", pragma="no-cache")),
    "§5.4 Pragma of a response with a word nobody knows": kept(cc("max-age=60", pragma="foo")),
    "§5.4 Pragma of a response alone, as a choice of ours": unkept(fields(expires=date(60), pragma="no-cache")),
    "§5.2.3 what nobody knows": after(1, "kept", FRESH, asks={"cache-control": "x=y, z"}),
}

VALIDATION = {
    "§4.3.1 by the entity tag": [
        Step("new", says=ETAG), Step("valid", says=SAME, after=61, app_gets={"if-none-match": '"one"'}),
    ],
    "§4.3.1 by the date": [
        Step("new", says=CHANGED),
        Step("valid", says=Says({}, 304, b""), after=61, app_gets={"if-modified-since": date(-1000)}),
    ],
    "§4.3.1 not by the client's own conditions": [
        Step("new", says=ETAG),
        Step("valid", {"if-none-match": '"two"'}, SAME, after=61, app_gets={"if-none-match": '"one"'}),
    ],
    "§4.3.1 what has no validator is asked for whole": [
        Step("new", says=FRESH), Step("new", after=61, app_gets={"if-none-match": ""}),
    ],
    "§4.3.2 If-None-Match": kept(ETAG, asks={"if-none-match": '"one"'}, status=304, body=b""),
    "§4.3.2 If-None-Match weakly": kept(ETAG, asks={"if-none-match": 'W/"one"'}, status=304, body=b""),
    "§4.3.2 If-None-Match of several": kept(ETAG, asks={"if-none-match": '"x", "one"'}, status=304, body=b""),
    "§4.3.2 If-None-Match star": kept(ETAG, asks={"if-none-match": "*"}, status=304, body=b""),
    "§4.3.2 If-None-Match of another": kept(ETAG, asks={"if-none-match": '"two"'}, status=200),
    "§4.3.2 If-None-Match before If-Modified-Since": kept(
        cc("max-age=60", etag='"one"', last_modified=date(-1000)),
        asks={"if-none-match": '"two"', "if-modified-since": date(0)}, status=200,
    ),
    "§4.3.2 If-Modified-Since": kept(CHANGED, asks={"if-modified-since": date(-1000)}, status=304, body=b""),
    "§4.3.2 If-Modified-Since after": kept(CHANGED, asks={"if-modified-since": date(-500)}, status=304, body=b""),
    "§4.3.2 If-Modified-Since in the old form": kept(
        CHANGED, asks={"if-modified-since": "Friday, 15-Jan-27 07:43:20 GMT"}, status=304, body=b"",
    ),
    "§4.3.2 If-Modified-Since that is none": kept(CHANGED, asks={"if-modified-since": "yesterday"}, status=200),
    "§4.3.2 If-Modified-Since goes by Date where there is no Last-Modified": [
        Step("new", says=cc("max-age=60", date=date(0))),
        Step("kept", {"if-modified-since": date(0)}, status=304, body=b""),
        Step("kept", {"if-modified-since": date(-1)}, status=200),
    ],
    "§4.3.2 If-Modified-Since, and the app's 304": [
        Step("new", says=CHANGED),
        Step("valid", {"if-modified-since": date(-1000)}, Says({}, 304, b""), after=61, status=304, body=b""),
    ],
    "§4.3.2 a 304 tells what the 200 would of its freshness": kept(
        cc("max-age=60", etag='"one"', vary="Foo", expires=date(60), date=date(0), content_location="/bar"),
        asks={"if-none-match": '"one"'}, status=304, body=b"", lacks=("content-type", "content-length"),
        has={"etag": '"one"', "cache-control": "max-age=60", "vary": "Foo", "expires": date(60), "date": date(0),
             "content-location": "/bar"},
    ),
    **{
        f"§4.3.2 If-None-Match of several, {asked}": kept(ETAG, asks={"if-none-match": asked}, status=304, body=b"")
        for asked in ('"one", "1", "2"', '"1", "one", "2"', '"1", "2", "one"', '"1","2" , W/"one"')
    },
    **{
        f"§4.3.2 {tag} by {asked}": kept(cc("max-age=60", etag=tag), asks={"if-none-match": asked}, status=status)
        for tag, asked, status in (
            ('W/"one"', 'W/"one"', 304), ('W/"one"', '"one"', 304), ('"oneü"', '"oneü"', 304), ('"o,e"', '"o,e"', 304),
            ('"one"', "one", 200), ("one", '"one"', 200), ("one", "one", 200), ('"one"', '"ONE"', 200),
            ('w/"one"', 'w/"one"', 200), ('W"one"', 'W"one"', 200),
        )
    },
    "§4.3.2 If-None-Match for what is not kept goes to the app": [
        Step("new", {"if-none-match": '"one"'}, FRESH, app_gets={"if-none-match": '"one"'}),
    ],
    "§4.3.1 with the fields that Vary names": [
        Step("new", {"foo": "1"}, cc("max-age=60", etag='"one"', vary="Foo")),
        Step("valid", {"foo": "1"}, SAME, after=61, app_gets={"if-none-match": '"one"', "foo": "1"}),
    ],
    "§4.3.1 not by the tag of another variant": [
        Step("new", {"foo": "1"}, cc("max-age=60", etag='"one"', vary="Foo")),
        Step("new", {"foo": "2"}, app_gets={"if-none-match": ""}),
    ],
    **{
        f"§4.3.1 by a tag as it is, {tag}": [
            Step("new", says=cc("max-age=60", etag=tag)),
            Step("valid", says=Says({"etag": tag}, 304, b""), after=61, app_gets={"if-none-match": tag}),
        ]
        for tag in ('W/"one"', "one")
    },
    "§4.3.1 by both": [
        Step("new", says=cc("max-age=60", etag='"one"', last_modified=date(-1000))),
        Step("valid", says=SAME, after=61, app_gets={"if-none-match": '"one"', "if-modified-since": date(-1000)}),
    ],
    "§4.3.2 If-Modified-Since before": kept(CHANGED, asks={"if-modified-since": date(-1001)}, status=200),
    "§4.3.2 304 to a client after the app's 304": [
        Step("new", says=ETAG), Step("valid", {"if-none-match": '"one"'}, SAME, after=61, status=304, body=b""),
    ],
    "§4.3.3 304 makes it fresh": [Step("new", says=ETAG), Step("valid", says=SAME, after=61), Step("kept", after=59)],
    "§4.3.3 200 takes its place": [
        Step("new", says=ETAG), Step("new", says=cc("max-age=60", etag='"two"'), after=61), Step("kept", after=10),
    ],
    "§4.3.3 an error is passed on": [
        Step("new", says=ETAG), Step("new", says=Says({}, 503, b"down"), after=61, status=503),
    ],
    "§4.3.4 the fields of a 304 count": [
        Step("new", says=cc("max-age=60", etag='"one"', x_a="old", x_b="old")),
        Step("valid", says=Says({"etag": '"one"', "x-a": "new", "cache-control": "max-age=9"}, 304, b""), after=61,
             has={"x-a": "new", "x-b": "old"}),
        Step("kept", after=8, has={"x-a": "new", "cache-control": "max-age=9"}),
        Step("valid", says=SAME, after=2),
    ],
    **{
        f"§4.3.4 {name} of a 304 counts": [
            Step("new", says=cc("max-age=60", **{"etag": '"one"', name: old})),
            Step("valid", says=Says({**SAME.headers, name: new}, 304, b""), after=61, has={name: new}),
            Step("kept", has={name: new}),
        ]
        for name, old, new in (
            ("x-test", "a", "b"), ("content-foo", "a", "b"), ("x-content-foo", "a", "b"),
            ("content-location", "/a", "/b"), ("content-security-policy", "a", "b"), ("content-md5", "a", "b"),
            ("clear-site-data", '"a"', '"b"'), ("set-cookie2", "a", "b"), ("x-frame-options", "a", "b"),
            ("expires", date(600), date(900)), ("last-modified", date(-900), date(-800)),
        )
    },
    **{
        f"§3.2 but {name} belongs to the body": [
            Step("new", says=cc("max-age=60", **{"etag": '"one"', name: old})),
            Step("valid", says=Says({**SAME.headers, name: new}, 304, b""), after=61, has={name: old}),
            Step("kept", has={name: old}),
        ]
        for name, old, new in (
            ("content-type", "text/plain", "text/html"), ("content-encoding", "x-a", "x-b"),
            ("content-range", "x 0-1/2", "x 0-2/3"),
        )
    },
    "§3.2 but not its Content-Length": [
        Step("new", says=cc("max-age=60", etag='"one"')),
        Step("valid", says=Says({"etag": '"one"', "content-length": "0", "cache-control": "max-age=60"}, 304, b""),
             after=61),
        Step("kept", lacks=("x",), has={"content-length": "8"}),
    ],
    "§4.3.4 a 304 of another response": [
        Step("new", says=ETAG), Step("asked twice", says=Says({"etag": '"three"'}, 304, b""), after=61),
    ],
    "§4.3.4 a 304 that says no-store": [
        Step("new", says=ETAG),
        Step("valid", says=Says({"etag": '"one"', "cache-control": "no-store"}, 304, b""), after=61),
        Step("new", says=FRESH, app_gets={"if-none-match": ""}),
    ],
    "§5.2.2.4 no-cache and a validator": [
        Step("new", says=cc("no-cache", etag='"one"')),
        Step("valid", says=Says({"etag": '"one"'}, 304, b"")),
        Step("valid", says=Says({"etag": '"one"'}, 304, b"")),
    ],
    "§5.2.2.4 no-cache without": unkept(cc("no-cache, max-age=60")),
    "§5.2.2.2 max-age=0 and a validator": [
        Step("new", says=cc("max-age=0", etag='"one"')), Step("valid", says=Says({"etag": '"one"'}, 304, b"")),
    ],
}  # fmt: skip

STALE = {
    "§4.2.4 must-revalidate": after(
        61, "new", cc("max-age=60, must-revalidate"), asks={"cache-control": "max-stale=99"}
    ),
    "§4.2.4 proxy-revalidate": after(
        61, "new", cc("max-age=60, proxy-revalidate"), asks={"cache-control": "max-stale=99"}
    ),
    "§4.2.4 s-maxage": after(61, "new", cc("s-maxage=60"), asks={"cache-control": "max-stale=99"}),
    "§4.2.4 no-cache": [
        Step("new", says=cc("no-cache", etag='"one"')),
        Step("new", {"cache-control": "max-stale=9"}, FRESH),
    ],
    "§4.2.4 must-revalidate and an error": [
        Step("new", says=cc("max-age=60, must-revalidate, stale-if-error=600")),
        Step("new", says=Says({}, 503), after=61, status=503),
    ],
    "§5.2.2.2 must-revalidate while fresh": after(59, "kept", cc("max-age=60, must-revalidate")),
    "RFC 5861 §3 given away meanwhile": after(61, "stale", cc("max-age=60, stale-while-revalidate=30")),
    "§4.2.4 what is stale is not given away by itself": [
        Step("new", says=FRESH),
        Step("new", says=Says({}, 503, b"down"), after=61, status=503),
    ],
    **{
        f"§4.2.4 {word} and an error": [
            Step("new", says=cc(f"max-age=60, stale-if-error=600, {word}")),
            Step("new", says=Says({}, 503, b"down"), after=61, status=503),
        ]
        for word in ("proxy-revalidate", "s-maxage=60", "no-cache")
    },
    "RFC 5861 §3 and not beyond": after(91, "new", cc("max-age=60, stale-while-revalidate=30")),
    "RFC 5861 §3 not if it must not": after(61, "new", cc("max-age=60, stale-while-revalidate=30, must-revalidate")),
    "RFC 5861 §3 not if the request says max-age": after(
        61, "new", cc("max-age=60, stale-while-revalidate=30"), asks={"cache-control": "max-age=1000"}
    ),
    "RFC 5861 §4 given away on an error": [
        Step("new", says=cc("max-age=60, stale-if-error=600")),
        Step("valid", says=Says({}, 503, b"down"), after=61, status=200, has={"age": "61"}),
        Step("valid", says=Says({}, 500, b"down"), status=200),
        Step("new", says=Says({}, 404, b"gone"), status=404),
    ],
    "RFC 5861 §4 as the request says": [
        Step("new", says=FRESH),
        Step("valid", IF_ERROR, Says({}, 503, b"down"), after=61, status=200, body=b"answer 1", has={"age": "61"}),
        Step("new", {}, Says({}, 503, b"down"), status=503),
    ],
    "RFC 5861 §4 as the request says, and not beyond": [
        Step("new", says=FRESH),
        Step("new", {"cache-control": "stale-if-error=20"}, Says({}, 503, b"down"), after=81, status=503),
    ],
    "RFC 5861 §4 what the response says is not less for it": [
        Step("new", says=cc("max-age=60, stale-if-error=600")),
        Step("valid", {"cache-control": "stale-if-error=1"}, Says({}, 503, b"down"), after=80, status=200),
    ],
    **{
        f"RFC 5861 §4 as the request says, but for {word}": [
            Step("new", says=cc(f"max-age=60, {word}", etag='"one"')),
            Step("valid", IF_ERROR, Says({}, 503, b"down"), after=61, status=503),
        ]
        for word in ("must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache")
    },
    "RFC 5861 §4 not for who wants nothing unconfirmed": [
        Step("new", says=FRESH),
        Step("new", {"cache-control": "no-cache, stale-if-error=600"}, Says({}, 503, b"down"), after=61, status=503),
    ],
    "RFC 5861 §4 and not beyond": [
        Step("new", says=cc("max-age=60, stale-if-error=600")),
        Step("new", says=Says({}, 503), after=661, status=503),
    ],
}

BY_HEAD = {
    "§4.3.5 HEAD that names the same makes it fresh": [
        Step("new", says=ETAG), Step("new", says=cc("max-age=60", etag='"one"', x_new="1"), after=61, method="HEAD"),
        Step("kept", after=59, body=b"answer 1", has={"x-new": "1", "etag": '"one"'}),
    ],
    "§4.3.5 HEAD that names the same date and length": [
        Step("new", says=CHANGED),
        Step("new", says=cc("max-age=60", last_modified=date(-1000), content_length="8"), after=61, method="HEAD"),
        Step("kept", body=b"answer 1"),
    ],
    "§4.3.5 HEAD that names another tag": [
        Step("new", says=ETAG), Step("new", ANEW, cc("max-age=60", etag='"two"'), method="HEAD"),
        Step("valid", says=SAME, app_gets={"if-none-match": '"one"'}), Step("kept", body=b"answer 1"),
    ],
    "§4.3.5 HEAD that names another date": [
        Step("new", says=CHANGED), Step("new", ANEW, cc("max-age=60", last_modified=date(0)), method="HEAD"),
        Step("valid", says=Says({}, 304, b"")),
    ],
    "§4.3.5 HEAD of another length": [
        Step("new", says=ETAG), Step("new", ANEW, cc("max-age=60", etag='"one"', content_length="9"), method="HEAD"),
        Step("valid", says=SAME),
    ],
    "§4.3.5 HEAD that names nothing confirms nothing": [
        Step("new", says=ETAG), Step("new", says=FRESH, after=61, method="HEAD"), Step("valid", says=SAME),
    ],
    "§4.3.5 HEAD that names nothing contradicts nothing": [
        Step("new", says=ETAG), Step("new", ANEW, FRESH, method="HEAD"), Step("kept", lacks=("x-new",)),
    ],
    "§4.3.5 HEAD that is well where an error is kept": [
        Step("new", says=Says({"cache-control": "max-age=60"}, 404), status=404),
        Step("new", ANEW, FRESH, method="HEAD"), Step("new", status=200),
    ],
    "§4.3.5 HEAD that fails": [
        Step("new", says=ETAG), Step("new", ANEW, Says({"etag": '"two"'}, 404), method="HEAD"), Step("kept"),
    ],
    "§4.3.5 HEAD that says it may not be kept any more": [
        Step("new", says=ETAG), Step("new", ANEW, cc("no-store", etag='"one"'), method="HEAD"),
        Step("valid", says=SAME),
    ],
    "§4.3.5 HEAD that asks for nothing to be kept": [
        Step("new", says=ETAG),
        Step("new", {"cache-control": "no-store, no-cache"}, cc("max-age=60", etag='"one"', x_new="1"), method="HEAD"),
        Step("kept", lacks=("x-new",)),
    ],
    "§4.3.5 HEAD of somebody who is told another thing": [
        Step("new", says=ETAG),
        Step("new", {"authorization": "a", **ANEW}, cc("max-age=60", etag='"theirs"'), method="HEAD"), Step("kept"),
    ],
    "§4.3.5 HEAD of a variant": [
        Step("new", {"foo": "1"}, cc("max-age=60", vary="Foo", etag='"one"')),
        Step("new", {"foo": "2"}, cc("max-age=60", vary="Foo", etag='"two"')),
        Step("new", {"foo": "1", **ANEW}, cc("max-age=60", vary="Foo", etag='"three"'), method="HEAD"),
        Step("kept", {"foo": "2"}), Step("valid", {"foo": "1"}, SAME),
    ],
    "§4.3.5 HEAD of somebody, whose fields are not for all": [
        Step("new", says=ETAG),
        Step("new", {"authorization": "a"}, cc("max-age=60", etag='"one"', x_new="1"), after=61, method="HEAD"),
        Step("valid", says=SAME, lacks=("x-new",)),
    ],
}  # fmt: skip

CHANGES = {
    **{
        f"§4.4 {method}": [Step("new", says=FRESH), Step("new", says=Says(), method=method), Step("new", says=FRESH)]
        for method in ("POST", "PUT", "DELETE", "PATCH", "REPORT", "M-SEARCH")
    },
    **{
        f"§4.4 not by {method} that fails": [
            Step("new", says=FRESH), Step("new", says=Says({}, 500), method=method), Step("kept"),
        ]
        for method in ("POST", "PUT", "DELETE", "M-SEARCH")
    },
    **{
        f"§4.4 {name} of {method}": [
            Step("new", says=FRESH, path="/a"), Step("new", says=fields(**{name: "/a"}), method=method),
            Step("new", says=FRESH, path="/a"),
        ]
        for method in ("POST", "PUT", "DELETE", "M-SEARCH")
        for name in ("location", "content_location")
    },
    "§4.4 not by a safe method": [
        Step("new", says=FRESH), Step("new", says=Says(), method="OPTIONS"), Step("kept"),
    ],
    "§4.4 not by an error": [Step("new", says=FRESH), Step("new", says=Says({}, 500), method="POST"), Step("kept")],
    "§4.4 by a redirect": [
        Step("new", says=FRESH),
        Step("new", says=Says({"location": "/x"}, 303), method="POST"),
        Step("new", says=FRESH),
    ],
    "§4.4 Location": [
        Step("new", says=FRESH, path="/a"),
        Step("new", says=Says({"location": "/a"}, 201), method="POST"),
        Step("new", path="/a"),
    ],
    "§4.4 Content-Location": [
        Step("new", says=FRESH, path="/a"),
        Step("new", says=Says({"content-location": "/a"}), method="POST"),
        Step("new", path="/a"),
    ],
    "§4.4 not of another origin": [
        Step("new", says=FRESH, path="/a", host="other"),
        Step("new", says=Says({"location": "http://other/a"}, 201), method="POST"),
        Step("kept", path="/a", host="other"),
    ],
}  # fmt: skip

BODY = b"0123456789"
TEN = Says({"cache-control": "max-age=60", "etag": '"one"'}, body=BODY)
RANGES = {
    f"RFC 9110 §14 {asked}": [Step("new", says=TEN), Step("kept", {"range": asked}, **more)]
    for asked, more in {
        "bytes=0-3": {"status": 206, "body": b"0123", "has": {"content-range": "bytes 0-3/10", "content-length": "4"}},
        "bytes=8-": {"status": 206, "body": b"89", "has": {"content-range": "bytes 8-9/10"}},
        "bytes=-3": {"status": 206, "body": b"789", "has": {"content-range": "bytes 7-9/10"}},
        "bytes=-99": {"status": 206, "body": BODY, "has": {"content-range": "bytes 0-9/10"}},
        "bytes=5-99": {"status": 206, "body": b"56789"},
        "bytes=10-": {"status": 416, "body": b"", "has": {"content-range": "bytes */10"}},
        "bytes=-0": {"status": 416, "body": b""},
        "bytes=4-2": {"status": 200, "body": BODY},
        "bytes=0-1,4-5": {"status": 200, "body": BODY},
        "lines=0-3": {"status": 200, "body": BODY},
        "bytes=a-b": {"status": 200, "body": BODY},
        "bytes=" + "0-0," * 1_500 + "1-1": {"status": 200, "body": BODY},
    }.items()
} | {
    "RFC 9110 §15.3.7 a part has the fields of the whole": [
        Step("new", says=Says({**TEN.headers, "x-a": "1", "date": date(0)}, body=BODY)),
        Step("kept", {"range": "bytes=0-1"}, status=206, body=b"01",
             has={"x-a": "1", "etag": '"one"', "date": date(0), "cache-control": "max-age=60"}),
    ],
    "RFC 9110 §13.1.5 If-Range the same": [
        Step("new", says=TEN), Step("kept", {"range": "bytes=0-1", "if-range": '"one"'}, status=206),
    ],
    "RFC 9110 §13.1.5 If-Range another": [
        Step("new", says=TEN), Step("kept", {"range": "bytes=0-1", "if-range": '"two"'}, status=200),
    ],
    "RFC 9110 §13.1.5 If-Range weakly": [
        Step("new", says=cc("max-age=60", etag='W/"one"')),
        Step("kept", {"range": "bytes=0-1", "if-range": 'W/"one"'}, status=200),
    ],
    "RFC 9110 §13.1.5 If-Range by a strong date": [
        Step("new", says=cc("max-age=60", last_modified=date(-100), date=date(0))),
        Step("kept", {"range": "bytes=0-1", "if-range": date(-100)}, status=206),
        Step("kept", {"range": "bytes=0-1", "if-range": date(-99)}, status=200),
    ],
    "RFC 9110 §13.2.2 a condition before a range": [
        Step("new", says=TEN), Step("kept", {"range": "bytes=0-1", "if-none-match": '"one"'}, status=304),
    ],
    "RFC 9110 §14.2 not for HEAD": [
        Step("new", says=TEN), Step("kept", {"range": "bytes=0-1"}, method="HEAD", status=200, body=b""),
    ],
    "§3.3 a part is passed on and not kept": [
        Step("new", {"range": "bytes=0-1"}, Says({"cache-control": "max-age=60"}, 206, b"01"), status=206),
        Step("new", says=TEN),
    ],
    "§3.3 a whole answer to a range is not kept either": [Step("new", {"range": "bytes=0-1"}, TEN), Step("new")],
}  # fmt: skip

TABLE = {**STORING, **KEYS, **FRESHNESS, **ASKING, **VALIDATION, **BY_HEAD, **STALE, **CHANGES, **RANGES}


OLD = {"last-modified": date(-86_400), "date": date(0)}
GUESSING = Cache(heuristic=0.1)
EVERY = Cache(heuristic=0.1, statuses=(200, 299, 400, 403, 499, 500, 502, 503, 504, 599))
GRACE = Cache(stale_if_error=600)
SETTINGS = {
    **{
        f"§4.2.2 a guess for {status}": (GUESSING, kept(Says(OLD, status, BARE.get(status)), status=status))
        for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501)
    },
    **{
        f"§4.2.2 no guess for {status}": (GUESSING, unkept(Says(OLD, status), status=status))
        for status in (201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599)
    },
    **{
        f"§4.2.2 no guess for {status}, though it may be kept": (EVERY, unkept(Says(OLD, status), status=status))
        for status in (299, 403, 503, 599)
    },
    **{
        f"§4.2.2 a guess for {status} that may be kept and is public": (
            EVERY, kept(Says({**OLD, "cache-control": "public"}, status), status=status),
        )
        for status in (200, 299, 403, 503, 599)
    },
    "§4.2.2 no guess for what is public and may not be kept": (
        GUESSING, unkept(Says({**OLD, "cache-control": "public"}, 599), status=599),
    ),
    **{
        f"§4.2.2 a guess after {seconds} seconds": (
            GUESSING, after(5, gets, fields(last_modified=date(-seconds), date=date(0))),
        )
        for seconds, gets in {5: "new", 50: "new", 60: "kept", 3600: "kept", 86_400: "kept"}.items()
    },
    "§4.2.2 a guess for what is to be saved to a file": (
        GUESSING, kept(Says({**OLD, "content-disposition": "attachment"})),
    ),
    "§4.2.2 no guess beside a time that is none": (GUESSING, unkept(Says({**OLD, "cache-control": "max-age=x"}))),
    "§5.4 no guess with Pragma: no-cache, as a choice of ours": (
        GUESSING, [Step("new", says=Says({**OLD, "pragma": "no-cache"})), Step("valid", says=Says({}, 304, b""))],
    ),
    **{
        f"§3 a status that was named and says for how long, {status}": (
            EVERY, kept(Says({"cache-control": "max-age=60"}, status), status=status),
        )
        for status in (299, 400, 403, 499, 500, 502, 503, 504, 599)
    },
    **{
        f"§3 a status that was named and says it is over, {status}": (
            EVERY, unkept(Says({**OLD, "expires": date(-10)}, status), status=status),
        )
        for status in (299, 400, 503, 599)
    },
    **{
        f"§5.2.2.3 must-understand, and it is, {status}": (
            EVERY, kept(Says({"cache-control": "no-store, must-understand, max-age=60"}, status), status=status),
        )
        for status in (400, 403, 500, 503)
    },
    **{
        f"§5.2.2.3 {said} of a status nobody knows, {status}": (
            EVERY, unkept(Says({"cache-control": f"{said}, max-age=60"}, status), status=status),
        )
        for status in (299, 499, 599)
        for said in ("must-understand", "must-understand, no-store", "public, must-understand")
    },
    "RFC 5861 §4 without a word of the response": (
        GRACE, [Step("new", says=FRESH), Step("valid", says=Says({}, 503, b"down"), after=61, status=200)],
    ),
    "RFC 5861 §4 but not against its word": (
        GRACE,
        [
            Step("new", says=cc("max-age=60, must-revalidate")),
            Step("new", says=Says({}, 503, b"down"), after=61, status=503),
        ],
    ),
}  # fmt: skip


class App:
    """Says what the step tells it to, and numbers its answers."""

    def __init__(self) -> None:
        self.says = Says()
        self.asked: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        says = self.says
        body = b"answer %d" % len(self.asked) if says.body is None else says.body
        headers = dict(scope["headers"])
        if says.status == 304 and not headers.keys() & {b"if-none-match", b"if-modified-since"}:
            says, body = Says(), b"whole after all"
        await send({"type": "http.response.start", "status": says.status, "headers": lines(says.headers)})
        body = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": body, "more_body": says.breaks_off})


@pytest.mark.parametrize("where", ["memory", "elsewhere"])
@pytest.mark.parametrize("story", TABLE.values(), ids=TABLE)
async def test_what_the_standards_demand(story: Sequence[Step], where: str) -> None:
    await tell(Cache(max_entry_bytes=1 << 20), story, where)


@pytest.mark.parametrize("where", ["memory", "elsewhere"])
@pytest.mark.parametrize(("cache", "story"), SETTINGS.values(), ids=SETTINGS)
async def test_what_the_standards_demand_of_what_was_switched_on(
    cache: Cache, story: Sequence[Step], where: str
) -> None:
    await tell(cache, story, where)


async def tell(cache: Cache, story: Sequence[Step], where: str) -> None:
    app, clock = App(), FakeClock(START)
    entries = Elsewhere() if where == "elsewhere" else None
    cached = Stack(cache, env=Env(clock=clock, entries=entries), place="here")(app)
    for step in story:
        await check(cached, app, clock, step)


async def check(cached: Any, app: App, clock: FakeClock, step: Step) -> None:
    clock.advance(step.after)
    app.says = step.says or app.says
    before = len(app.asked)
    answer = await call(
        cached, step.method, step.path,
        headers=[(b"host", step.host.encode()), *lines(step.asks)], query=step.query.encode(), scheme=step.scheme,
    )  # fmt: skip
    asked = len(app.asked) - before
    told = answer.header(b"cache-status") or b""
    assert asked == {"new": 1, "valid": 1, "asked twice": 2}.get(step.gets, 0), told
    assert told.startswith(b"apim;hit") is (step.gets in ("kept", "stale")), told
    if step.gets == "stale":
        assert b";ttl=-" in told
    if step.gets == "new" and step.method == "GET" and app.says.body is None and not app.says.breaks_off:
        assert answer.body == b"answer %d" % len(app.asked)
    if step.status is not None:
        assert answer.status == step.status
    if step.body is not None:
        assert answer.body == step.body
    for name, value in step.has.items():
        assert answer.all(name.encode()) == [str(value).encode()]
    for name in step.lacks:
        assert answer.header(name.encode()) is None
    for name, value in step.app_gets.items():
        got = [line for at, line in app.asked[-1]["headers"] if at == name.encode()]
        assert got == ([str(value).encode()] if value else [])
