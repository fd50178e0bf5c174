"""What hostile or broken upstreams say."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def head(*lines, status=b"200 OK", version=b"1.1"):
    return b"HTTP/" + version + b" " + b"\r\n".join([status, *lines]) + b"\r\n\r\n"


CHUNKED = b"transfer-encoding: chunked"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"

HEADS = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nconte",
    "no HTTP": b"hello\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "HTTP/2.0": head(b"content-length: 0", version=b"2.0"),
    "HTTP/1.2": head(b"content-length: 0", version=b"1.2"),
    "ICE/1.0": b"ICE/1.0 200 OK\r\n\r\n",
    "a small http": b"http/1.1 200 OK\r\n\r\n",
    "an empty line first": b"\r\n" + OK,
    "status 99": head(b"content-length: 0", status=b"99 Low"),
    "status 099": head(b"content-length: 0", status=b"099 Low"),
    "status 600": head(b"content-length: 0", status=b"600 High"),
    "status 2000": head(b"content-length: 0", status=b"2000 High"),
    "status -1": head(b"content-length: 0", status=b"-1 Low"),
    "a status of letters": head(b"content-length: 0", status=b"2xx OK"),
    "a status of two digits": head(b"content-length: 0", status=b"20 OK"),
    "a status in another base": head(b"content-length: 0", status=b"0xC8 OK"),
    "a status line of 100 KB": head(b"content-length: 0", status=b"200 " + b"a" * 100_000),
    "an endless status line": b"HTTP/1.1 200 " + b"a" * (1 << 20),
    "a null byte in the reason": head(b"content-length: 0", status=b"200 a\0b"),
    "a bare carriage return in the reason": head(b"content-length: 0", status=b"200 a\rb: c"),
    "two spaces before the status": head(b"content-length: 0", status=b" 200 OK"),
    "101 not asked for": head(b"upgrade: websocket", b"connection: upgrade", status=b"101 Switching Protocols"),
    "101 without an upgrade": head(status=b"101 Switching Protocols"),
    "a null byte": head(b"x: a\0b", b"content-length: 0"),
    "a control character": head(b"x: a\x01b", b"content-length: 0"),
    "a delete": head(b"x: a\x7fb", b"content-length: 0"),
    "a bare carriage return": head(b"x: a\rset-cookie: b", b"content-length: 0"),
    "a bare line feed": head(b"x: a\ny: b", b"content-length: 0"),
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "a bare line feed after the status": b"HTTP/1.1 200 OK\nx: y\r\ncontent-length: 2\r\n\r\nok",
    "a bare line feed at the end": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\nok",
    "a folded line": head(b"x: a", b"  b", b"content-length: 0"),
    "a line folded by a tab": head(b"x: a", b"\tb", b"content-length: 0"),
    "a folded coding": head(b"transfer-encoding:", b" chunked") + CHUNKS,
    "a folded length": head(b"content-length:", b" 2") + b"ok",
    "a folded status line": head(b" x: a", b"content-length: 0"),
    "a space in a name": head(b"x y: a", b"content-length: 0"),
    "a space before the colon": head(b"x : a", b"content-length: 0"),
    "a space before the colon of a length": head(b"content-length : 2") + b"ok",
    "a space before the colon of a coding": head(b"transfer-encoding : chunked") + CHUNKS,
    "an empty name": head(b": a", b"content-length: 0"),
    "a line without a colon": head(b"x", b"content-length: 0"),
    "another alphabet": head(b"x\xe9: a", b"content-length: 0"),
    "1 MB of header": head(b"x: " + b"a" * (1 << 20), b"content-length: 0"),
    "an endless header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * (1 << 20),
    "5,000 headers": head(*[b"x-%d: y" % number for number in range(5000)], b"content-length: 0"),
    "300 headers": head(*[b"x-%d: y" % number for number in range(300)], b"content-length: 0"),
    "10,000 interim responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000 + OK,
    "an interim response for ever": b"HTTP/1.1 103 Early Hints\r\nlink: " + b"x" * (1 << 20),
    "two lengths": head(b"content-length: 2", b"content-length: 3") + b"okk",
    "two lengths alike": head(b"content-length: 2", b"content-length: 2") + b"ok",
    "two lengths in two spellings": head(b"content-length: 2", b"Content-Length: 2") + b"ok",
    "a list of lengths": head(b"content-length: 2, 3") + b"okk",
    "a list of lengths alike": head(b"content-length: 2, 2") + b"ok",
    "a signed length": head(b"content-length: +2") + b"ok",
    "a length below zero": head(b"content-length: -2") + b"ok",
    "a hexadecimal length": head(b"content-length: 0x2") + b"ok",
    "a length with a space within": head(b"content-length: 1 0"),
    "a length of nothing": head(b"content-length:"),
    "an endless length": head(b"content-length: " + b"9" * 5000),
    "a length beyond any number": head(b"content-length: " + b"9" * 30),
    "length and chunks": head(b"content-length: 2", CHUNKED) + CHUNKS,
    "chunks and length": head(CHUNKED, b"content-length: 2") + CHUNKS,
    "an unknown coding": head(b"transfer-encoding: gzip") + b"ok",
    "a coding that sounds alike": head(b"transfer-encoding: xchunked") + CHUNKS,
    "identity": head(b"transfer-encoding: identity") + b"ok",
    "two codings": head(b"transfer-encoding: gzip, chunked") + CHUNKS,
    "chunked before another": head(b"transfer-encoding: chunked, identity") + CHUNKS,
    "chunked twice": head(CHUNKED, CHUNKED) + CHUNKS,
    "a coding of nothing": head(b"transfer-encoding:") + CHUNKS,
    "chunks of HTTP/1.0": head(CHUNKED, version=b"1.0") + CHUNKS,
}  # fmt: skip
"""Whose heads are no answer."""

BODIES = {
    "too short": head(b"content-length: 5") + b"ok",
    "a chunk too short": head(CHUNKED) + b"5\r\nok",
    "no last chunk": head(CHUNKED) + b"2\r\nok\r\n",
    "no end of the trailers": head(CHUNKED) + b"2\r\nok\r\n0\r\nx: y\r\n",
    "a chunk without a size": head(CHUNKED) + b"2\r\nok\r\nxyz\r\n",
    "an empty size": head(CHUNKED) + b"2\r\nok\r\n\r\n0\r\n\r\n",
    "a negative chunk": head(CHUNKED) + b"2\r\nok\r\n-2\r\nok\r\n0\r\n\r\n",
    "a signed chunk": head(CHUNKED) + b"2\r\nok\r\n+2\r\nok\r\n0\r\n\r\n",
    "a chunk with 0x": head(CHUNKED) + b"2\r\nok\r\n0x2\r\nok\r\n0\r\n\r\n",
    "a chunk with an underscore": head(CHUNKED) + b"2\r\nok\r\n0_2\r\nok\r\n0\r\n\r\n",
    "a space before the size": head(CHUNKED) + b"2\r\nok\r\n 2\r\nok\r\n0\r\n\r\n",
    "a space after the size": head(CHUNKED) + b"2\r\nok\r\n2 \r\nok\r\n0\r\n\r\n",
    "an immense chunk": head(CHUNKED) + b"2\r\nok\r\n" + b"f" * 40 + b"\r\n",
    "a chunk size that wraps": head(CHUNKED) + b"2\r\nok\r\n10000000000000002\r\nok\r\n0\r\n\r\n",
    "an endless chunk line": head(CHUNKED) + b"2\r\nok\r\n2;" + b"x" * 1_000_000,
    "a null byte in an extension": head(CHUNKED) + b"2;a\0b\r\nok\r\n0\r\n\r\n",
    "endless trailers": head(CHUNKED) + b"2\r\nok\r\n0\r\n" + b"x: y\r\n" * 100_000,
    "a trailer that is none": head(CHUNKED) + b"2\r\nok\r\n0\r\nx\r\n\r\n",
    "a response for a trailer": head(CHUNKED) + b"2\r\nok\r\n0\r\n" + OK,
    "bare line feeds": head(CHUNKED) + b"2\nok\n0\n\n",
    "a bare line feed after a size": head(CHUNKED) + b"2\r\nok\r\n2\nok\r\n0\r\n\r\n",
    "a bare line feed after a chunk": head(CHUNKED) + b"2\r\nok\n0\r\n\r\n",
    "a bare carriage return after a size": head(CHUNKED) + b"2\rok\r\n0\r\n\r\n",
    "a chunk longer than told": head(CHUNKED) + b"2\r\nok\r\n2\r\noops\r\n0\r\n\r\n",
    "a chunk without its end": head(CHUNKED) + b"2\r\nok0\r\n\r\n",
}  # fmt: skip
"""Whose heads are good and whose bodies are not."""

STALLING = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 200",
    "half a head": b"HTTP/1.1 200 OK\r\nx: y\r\n",
    "an interim response": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a length": head(b"content-length: 5"),
    "half a body": head(b"content-length: 5") + b"ok",
    "chunks": head(CHUNKED) + b"2\r\nok\r\n",
    "half a chunk line": head(CHUNKED) + b"2",
    "no end but the connection's": head() + b"ok",
}
"""Who say this and nothing more."""

POISON = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"

EXCESS = {
    "a response after a length": ("GET", OK + POISON),
    "a response after chunks": ("GET", head(CHUNKED) + CHUNKS + POISON),
    "a response after none": ("GET", head(status=b"204 No Content") + POISON),
    "a response after not modified": ("GET", head(status=b"304 Not Modified") + POISON),
    "a response after a head": ("HEAD", head(b"content-length: 2") + POISON),
    "a body after a head": ("HEAD", OK),
    "a body after none": ("GET", head(b"content-length: 2", status=b"204 No Content") + b"ok"),
    "a line break": ("GET", OK + b"\r\n"),
    "one byte": ("GET", OK + b"0"),
    "a chunk after the last": ("GET", head(CHUNKED) + CHUNKS + CHUNKS),
}
"""Who say more than a response, and stay."""
