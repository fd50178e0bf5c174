"""Names and values of header lines are checked before they are written, and lists are read over all their lines."""

import pytest

from apim_middleware._http.headers import header_name, header_value, list_members, raw_headers, without

EVERY = [bytes([code]) for code in range(256)]


def test_a_value_holds_no_control_but_the_tab() -> None:
    """RFC 9110 §5.5."""
    refused = []
    for each in EVERY:
        try:
            header_value(b"a" + each + b"b")
        except ValueError:
            refused.append(each)
    assert refused == [each for each in EVERY if (each < b" " and each != b"\t") or each == b"\x7f"]


def test_a_name_is_a_token() -> None:
    """RFC 9110 §5.6.2."""
    token = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    accepted = []
    for each in EVERY:
        try:
            accepted.append(header_name(b"x" + each))
        except ValueError:
            assert each not in token
    assert sorted(set(accepted)) == sorted({b"x%c" % code for code in token.lower()})


def test_a_name_is_not_empty() -> None:
    with pytest.raises(ValueError, match="not a header name"):
        header_name("")


def test_lines_are_written_without_outer_blanks_under_lower_case_names() -> None:
    assert raw_headers({"X-A": " a b\t"}) == [(b"x-a", b"a b")]


def test_text_beyond_latin_1_is_no_value() -> None:
    with pytest.raises(ValueError, match="outside Latin-1"):
        header_value("\u20ac")


def test_a_list_goes_over_all_its_lines() -> None:
    lines = [(b"te", b" A ,,b"), (b"x", b"no"), (b"te", b"\tC")]
    assert list_members(lines, b"te") == [b"a", b"b", b"c"]


def test_every_line_of_a_name_is_left_out() -> None:
    lines = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4")]
    assert without(lines, b"a", b"c") == [(b"b", b"2")]
    assert len(lines) == 4
