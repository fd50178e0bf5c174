"""References, domains and paths of an upstream become those of the public; everything else stays byte for byte."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.locations import (
    Base,
    base_of,
    origin_base,
    path_base_of,
    rewritten,
    rewritten_cookie,
    rewritten_refresh,
)

PLAIN = base_of("http://backend:8080")
DEEP = base_of("http://backend:8080/api/")
SITE = base_of("https://site.test")
SHOP = base_of("https://site.test/shop")


@pytest.mark.parametrize(
    ("reference", "upstream", "public", "becomes"),
    [
        ("http://backend:8080/x?y=1#z", PLAIN, SITE, "https://site.test/x?y=1#z"),
        ("HTTP://BACKEND:8080/X", PLAIN, SITE, "https://site.test/X"),
        ("http://backend:8080", PLAIN, SITE, "https://site.test/"),
        ("http://backend:8080?q", PLAIN, SITE, "https://site.test/?q"),
        ("http://backend:8080/", PLAIN, SHOP, "https://site.test/shop/"),
        ("http://backend:8080/x", PLAIN, SHOP, "https://site.test/shop/x"),
        ("http://u:p@backend:8080/x", PLAIN, SITE, "https://site.test/x"),
        ("//backend:8080/x", PLAIN, SITE, "https://site.test/x"),
        ("http://backend:8080/api/x", DEEP, SHOP, "https://site.test/shop/x"),
        ("http://backend:8080/api", DEEP, SHOP, "https://site.test/shop"),
        ("http://backend:8080/api?q", DEEP, SITE, "https://site.test/?q"),
        ("http://backend:8080/apis", DEEP, SHOP, None),
        ("http://backend:8080/other", DEEP, SHOP, None),
        ("http://backend/x", base_of("http://backend:80"), SITE, "https://site.test/x"),
        ("http://backend:80/x", base_of("http://backend"), SITE, "https://site.test/x"),
        ("http://[::1]:8080/x", base_of("http://[::1]:8080"), SITE, "https://site.test/x"),
        ("/x", PLAIN, SHOP, "/shop/x"),
        ("/x", PLAIN, SITE, "/x"),
        ("/api/x", DEEP, SITE, "/x"),
        ("/api", DEEP, SITE, "/"),
        ("/apis", DEEP, SITE, None),
        ("/api//evil.test", DEEP, SITE, "/evil.test"),
        ("/api/\\evil.test", DEEP, SITE, "/evil.test"),
        ("http://backend:8080//evil.test", PLAIN, Base("", "", None, b""), "/evil.test"),
        ("x/y", PLAIN, SHOP, None),
        ("?q", PLAIN, SHOP, None),
        ("", PLAIN, SHOP, None),
        ("http://other:8080/x", PLAIN, SITE, None),
        ("http://backend:8081/x", PLAIN, SITE, None),
        ("http://backend/x", PLAIN, SITE, None),
        ("https://backend:8080/x", PLAIN, SITE, None),
        ("http://backend:8080.evil.test/x", PLAIN, SITE, None),
        ("http://backend:8080@evil.test/x", PLAIN, SITE, None),
        ("http://evil.test/http://backend:8080/x", PLAIN, SITE, None),
        ("http://backend:99999/x", PLAIN, SITE, None),
        ("http://[backend/x", PLAIN, SITE, None),
        ("mailto:a@backend", PLAIN, SITE, None),
    ],
)
def test_references(reference: str, upstream: Base, public: Base, becomes: str | None):
    assert rewritten(reference.encode(), upstream, public) == (None if becomes is None else becomes.encode())


def test_bytes_beyond_ascii_stay_as_they_are():
    assert rewritten("http://backend:8080/é".encode(), PLAIN, SITE) == "https://site.test/é".encode()
    assert rewritten("/é".encode(), PLAIN, SHOP) == "/shop/é".encode()


@given(st.text(alphabet="/\\.:@ab?#\t", max_size=12))
def test_a_path_of_the_upstream_never_becomes_another_host(text: str):
    there = rewritten(f"/api/{text}".encode(), DEEP, Base("", "", None, b""))
    assert there is not None
    assert urlsplit(urljoin("http://site.test/", there.decode().replace("\\", "/"))).netloc == "site.test"


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("5; url=http://backend:8080/x", "5; url=https://site.test/x"),
        ("0;URL='http://backend:8080/x'", "0;URL='https://site.test/x'"),
        ('0, url="/x"', '0, url="/x"'),
        ("5", None),
        ("5; url=http://other/x", None),
    ],
)
def test_refresh(value: str, becomes: str | None):
    assert rewritten_refresh(value.encode(), PLAIN, SITE) == (None if becomes is None else becomes.encode())


INNER = base_of("http://app.corp.test:8080")


@pytest.mark.parametrize(
    ("value", "upstream", "public", "domain", "becomes"),
    [
        ("a=b; Domain=app.corp.test; Path=/", INNER, SITE, None, "a=b; Path=/"),
        ("a=b; domain=.CORP.test", INNER, SITE, None, "a=b"),
        ("a=b;Domain=corp.test;Secure", INNER, SITE, b"site.test", "a=b;Domain=site.test;Secure"),
        ("a=b; Domain=other.test", INNER, SITE, None, "a=b; Domain=other.test"),
        ("a=b; Domain=xcorp.test", INNER, SITE, None, "a=b; Domain=xcorp.test"),
        ("a=b; Domain=test", INNER, SITE, None, "a=b; Domain=test"),
        ("a=b; Domain=", INNER, SITE, None, "a=b; Domain="),
        ("a=b; Path=/", PLAIN, SHOP, None, "a=b; Path=/shop"),
        ("a=b; Path=/x/", PLAIN, SHOP, None, "a=b; Path=/shop/x/"),
        ("a=b; PATH = /api/x", DEEP, SHOP, None, "a=b; PATH =/shop/x"),
        ("a=b; Path=/api", DEEP, SITE, None, "a=b; Path=/"),
        ("a=b; Path=/apis", DEEP, SITE, None, "a=b; Path=/apis"),
        ("a=b; Path=x", PLAIN, SHOP, None, "a=b; Path=x"),
        ("a=b", PLAIN, SHOP, None, "a=b"),
        ("__Host-a=b; Path=/; Secure", PLAIN, SHOP, None, "__Host-a=b; Path=/; Secure"),
        ("a=Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Odd;; X=y=z ;", DEEP, SHOP, None, "="),
    ],
)
def test_cookies(value: str, upstream: Base, public: Base, domain: bytes | None, becomes: str):
    wanted = value if becomes == "=" else becomes
    assert rewritten_cookie(value.encode(), [upstream], public, domain) == wanted.encode()


def test_the_domain_of_any_upstream_goes():
    assert rewritten_cookie(b"a=b; Domain=app.corp.test; Path=/api", [DEEP, INNER], SITE, None) == b"a=b; Path=/"


@pytest.mark.parametrize(
    "text", ["", "backend", "ftp://a", "http://", "http://a?b", "http://a#", "http://u:p@a", "http://a:x"]
)
def test_what_is_no_base(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - any will do
        base_of(text)


@pytest.mark.parametrize("text", ["", "a", "//a", "/a?b", "/a#b"])
def test_what_is_no_path(text: str):
    with pytest.raises(ValueError, match="no path"):
        path_base_of(text)


def test_an_origin_that_was_not_sent_leaves_paths():
    assert origin_base("http", b"", b"/x") == ("http", "", 80, b"/x")
    assert rewritten(b"http://backend:8080/a", PLAIN, origin_base("http", b"[", b"")) == b"/a"


def test_an_origin_as_it_is_written():
    assert base_of("https://Site.test:443/").origin == b"https://site.test"
    assert base_of("http://[::1]:8080").origin == b"http://[::1]:8080"
