"""Content codings (RFC 9110 §8.4, §12.5.3): which one a client is given, and the encoders that make them."""

import re
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeAlias

Coding: TypeAlias = Literal["zstd", "br", "gzip"]

CODINGS: dict[Coding, str | None] = {"zstd": "zstandard", "br": "brotli", "gzip": None}
"""Every coding there is an encoder for, the preferred first, and the library it takes."""

_WEIGHT = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)
_LONGEST = 1024


class Choice(NamedTuple):
    """What a client accepts: the best of the offered codings, and whether it refuses to do without."""

    coding: Coding | None
    needed: bool = False


NONE = Choice(None)


def choose(value: bytes | None, offered: tuple[Coding, ...]) -> Choice:
    """The coding for a client with this Accept-Encoding; of several it likes equally, the one offered first.

    A client that does not send the field gets none, though it would have to take any; members that cannot be read are
    left out.
    """
    return NONE if not value or len(value) > _LONGEST else _chosen(value, offered)


@lru_cache(maxsize=512)
def _chosen(value: bytes, offered: tuple[Coding, ...]) -> Choice:
    weights = _weights(value)
    others = weights.get(b"*")
    plain = weights.get(b"identity", 0.0 if others == 0.0 else None)
    best = max(offered, key=lambda coding: weights.get(coding.encode(), others or 0.0))  # the first of equals
    weight = weights.get(best.encode(), others or 0.0)
    return Choice(best, needed=plain == 0.0) if weight > 0.0 and weight >= (plain or 0.0) else NONE


def _weights(value: bytes) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for member in value.lower().split(b","):
        coding, *parameters = [part.strip(b" \t") for part in member.split(b";")]
        weight = _WEIGHT.fullmatch(parameters[0]) if len(parameters) == 1 else None
        if coding and (weight or not parameters):
            found[b"gzip" if coding == b"x-gzip" else coding] = float(weight[1]) if weight else 1.0
    return found


# Encoders


class Encoder(NamedTuple):
    """Encodes one body, piece by piece."""

    encode: Callable[[bytes], bytes]
    flush: Callable[[], bytes]
    """What is needed so that a client can decode all it was given."""

    finish: Callable[[], bytes]


def installed(coding: Coding) -> bool:
    """Whether the library for a coding is there."""
    library = CODINGS[coding]
    return library is None or find_spec(library) is not None


def encoders(coding: Coding, level: int) -> Callable[[], Encoder]:
    """What makes an encoder for each body; ImportError when its library is not installed."""
    return {"gzip": _gzip, "br": _brotli, "zstd": _zstd}[coding](level)


def _gzip(level: int) -> Callable[[], Encoder]:
    def encoder() -> Encoder:
        stream = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # with the header of gzip, without a date
        return Encoder(stream.compress, partial(stream.flush, zlib.Z_SYNC_FLUSH), stream.flush)

    return encoder


def _brotli(level: int) -> Callable[[], Encoder]:
    make = import_module("brotli").Compressor

    def encoder() -> Encoder:
        stream = make(quality=level, lgwin=19)  # 512 KiB: a window as large as the default costs memory for each body
        return Encoder(stream.process, stream.flush, stream.finish)

    return encoder


def _zstd(level: int) -> Callable[[], Encoder]:
    library = import_module("zstandard")
    # As for 512 KiB: it keeps the encoder small, and no decoder need take a window of more than 8 MiB (RFC 9659).
    parameters = library.ZstdCompressionParameters.from_level(level, source_size=1 << 19)

    def encoder() -> Encoder:
        stream = library.ZstdCompressor(compression_params=parameters).compressobj()
        return Encoder(stream.compress, partial(stream.flush, library.COMPRESSOBJ_FLUSH_BLOCK), stream.flush)

    return encoder
