"""The coding a client is given is one it accepts, the best for it, and what is encoded decodes to what it was."""

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.content_codings import CODINGS, NONE, Choice, Coding, choose, encoders, installed

ALL: tuple[Coding, ...] = ("zstd", "br", "gzip")
GZIP: tuple[Coding, ...] = ("gzip",)


# RFC 9110 §12.5.3, its examples among them
@pytest.mark.parametrize(
    ("value", "offered", "choice"),
    [
        (None, ALL, NONE),
        (b"", ALL, NONE),
        (b"compress, gzip", ALL, Choice("gzip")),
        (b"*", ALL, Choice("zstd")),
        (b"compress;q=0.5, gzip;q=1.0", ALL, Choice("gzip")),
        (b"gzip;q=1.0, identity; q=0.5, *;q=0", ALL, Choice("gzip")),
        (b"gzip, deflate, br, zstd", ALL, Choice("zstd")),
        (b"gzip, deflate, br, zstd", ("br", "zstd", "gzip"), Choice("br")),
        (b"gzip, deflate, br", ALL, Choice("br")),
        (b"gzip, deflate, br", GZIP, Choice("gzip")),
        (b"zstd;q=0.5, br;q=0.9, gzip;q=0.8", ALL, Choice("br")),
        (b"br;q=0, *", ALL, Choice("zstd")),
        (b"zstd;q=0, br;q=0, *;q=0.1", ALL, Choice("gzip")),
        (b"deflate", ALL, NONE),
        (b"gzip;q=0", ALL, NONE),
        (b"*;q=0", ALL, NONE),
        (b"identity", ALL, NONE),
        (b"identity;q=1, gzip;q=0.5", ALL, NONE),
        (b"identity;q=0.5, gzip;q=0.5", ALL, Choice("gzip")),
        (b"identity;q=0, gzip", ALL, Choice("gzip", needed=True)),
        (b"gzip, *;q=0", ALL, Choice("gzip", needed=True)),
        (b"gzip, identity;q=0.1, *;q=0", ALL, Choice("gzip")),
        (b"identity;q=0", ALL, NONE),
        (b"X-GZIP", ALL, Choice("gzip")),
        (b"GZip ; Q=0.001", ALL, Choice("gzip")),
        (b"gzip;q=1.", ALL, Choice("gzip")),
        (b"gzip;q=2", ALL, NONE),
        (b"gzip;q=0.0001", ALL, NONE),
        (b"gzip;q=-1", ALL, NONE),
        (b"gzip;q=nan", ALL, NONE),
        (b"gzip;level=9", ALL, NONE),
        (b"gzip;q=0.5;q=1", ALL, NONE),
        (b",, gzip ,,", ALL, Choice("gzip")),
        (b";q=1", ALL, NONE),
        (b"gzip " * 300, ALL, NONE),
    ],
)
def test_choice(value: bytes | None, offered: tuple[Coding, ...], choice: Choice):
    assert choose(value, offered) == choice


@given(st.binary(max_size=60))
def test_any_bytes_can_be_asked_with(value: bytes):
    assert choose(value, ALL).coding in (None, *ALL)


def decoded(coding: Coding, data: bytes) -> bytes:
    """What a client makes of as much as it has."""
    match coding:
        case "gzip":
            return zlib.decompressobj(31).decompress(data)
        case "br":
            return brotli.Decompressor().process(data)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)


@pytest.mark.parametrize("coding", ALL)
@given(pieces=st.lists(st.binary(min_size=1, max_size=200), max_size=5))
def test_every_flush_lets_a_client_read_all_there_is(coding: Coding, pieces: list[bytes]):
    encoder = encoders(coding, 3)()
    sent = b""
    for number, piece in enumerate(pieces, 1):
        sent += encoder.encode(piece) + encoder.flush()
        assert decoded(coding, sent) == b"".join(pieces[:number])
    assert decoded(coding, sent + encoder.finish()) == b"".join(pieces)


def test_gzip_says_nothing_of_when_it_was_made():
    encoder = encoders("gzip", 6)()
    data = encoder.encode(b"x") + encoder.finish()
    assert data[4:8] == b"\0\0\0\0"
    assert gzip.decompress(data) == b"x"


def test_windows_are_small_enough_for_every_decoder():
    encoder = encoders("zstd", 19)()
    data = encoder.encode(b"x" * 5_000_000) + encoder.flush()
    assert zstandard.get_frame_parameters(data).window_size <= 1 << 19


def test_everything_is_installed_where_tests_run():
    assert all(map(installed, CODINGS))
