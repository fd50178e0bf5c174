"""What hostile clients say: requests that two readers could read in two ways, each with another one behind it."""

HEAD = b"POST /attack HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def lengths(length, *lines):
    return HEAD + b"".join(lines) + b"Content-Length: " + length + b"\r\n\r\n" + HIDDEN


def codings(line):
    """A coding that one reader may see and another not, with a body that reads well both ways."""
    return HEAD + b"Content-Length: 5\r\n" + line + b"\r\n\r\n0\r\n\r\n" + HIDDEN


def chunked(body):
    return HEAD + CHUNKED + b"\r\n" + body + HIDDEN


REQUESTS = {
    "CL.TE": codings(b"Transfer-Encoding: chunked"),
    "TE.CL": HEAD + CHUNKED + b"Content-Length: 4\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
    "TE with a space before the colon": codings(b"Transfer-Encoding : chunked"),
    "TE with a tab": codings(b"Transfer-Encoding:\tchunked"),
    "TE with a vertical tab": codings(b"Transfer-Encoding:\x0bchunked"),
    "TE behind a space": codings(b" Transfer-Encoding: chunked"),
    "TE folded": codings(b"Transfer-Encoding:\r\n chunked"),
    "TE behind a bare LF": codings(b"X: y\nTransfer-Encoding: chunked"),
    "TE behind a bare CR": codings(b"X: y\rTransfer-Encoding: chunked"),
    "TE behind a NUL": codings(b"X: y\0Transfer-Encoding: chunked"),
    "TE with an underscore": codings(b"Transfer_Encoding: chunked"),
    "TE in capitals": codings(b"TRANSFER-ENCODING: CHUNKED"),
    "TE in quotes": codings(b'Transfer-Encoding: "chunked"'),
    "TE of something like it": codings(b"Transfer-Encoding: xchunked"),
    "TE of identity": codings(b"Transfer-Encoding: identity"),
    "TE of gzip, chunked": codings(b"Transfer-Encoding: gzip, chunked"),
    "TE of chunked, identity": codings(b"Transfer-Encoding: chunked, identity"),
    "TE twice": codings(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "TE with a parameter": codings(b"Transfer-Encoding: chunked; q=0.5"),
    "TE with a comma": codings(b"Transfer-Encoding: ,chunked"),
    "TE of nothing": codings(b"Transfer-Encoding:"),
    "TE in HTTP/1.0": codings(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "CL twice, different": lengths(b"5", b"Content-Length: 0\r\n"),
    "CL twice, alike": lengths(b"5", b"Content-Length: 5\r\n"),
    "CL as a list": lengths(b"0, 5"),
    "CL as a list of one": lengths(b"0,"),
    "CL with a sign": lengths(b"+0"),
    "CL below zero": lengths(b"-1"),
    "CL in hexadecimal": lengths(b"0x5"),
    "CL with a space within": lengths(b"1 0"),
    "CL with a tab": lengths(b"\t0"),
    "CL with a fraction": lengths(b"0.0"),
    "CL with an underscore": lengths(b"1_0"),
    "CL of other digits": lengths(b"\xd9\xa5"),
    "CL beyond any number": lengths(b"9" * 30),
    "CL of nothing": lengths(b""),
    "CL with a space before the colon": HEAD + b"Content-Length : 5\r\n\r\n" + HIDDEN,
    "CL folded": HEAD + b"Content-Length:\r\n 5\r\n\r\n" + HIDDEN,
    "CL on a GET": b"GET /attack HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + HIDDEN,
    "a chunk size with a sign": chunked(b"+0\r\n\r\n"),
    "a chunk size with 0x": chunked(b"0x0\r\n\r\n"),
    "a chunk size beyond any number": chunked(b"f" * 20 + b"\r\n"),
    "a chunk size that wraps": chunked(b"1" + b"0" * 16 + b"\r\n\r\n"),
    "a chunk extension": chunked(b"0;a=b\r\n\r\n"),
    "a chunk extension with a bare LF": chunked(b"0;a\nb\r\n\r\n"),
    "a chunk size ended by a bare LF": chunked(b"0\n\r\n"),
    "a chunk size ended by a bare CR": chunked(b"0\r\r\n"),
    "a chunk longer than its size": chunked(b"1\r\nabc\r\n0\r\n\r\n"),
    "a chunk without its end": chunked(b"1\r\na0\r\n\r\n"),
    "trailers that frame": chunked(b"0\r\nContent-Length: 100\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "a folded line": HEAD + b"X: y\r\n Content-Length: 5\r\n\r\n" + HIDDEN,
    "a bare LF head": b"POST /attack HTTP/1.1\nHost: a\nContent-Length: 0\n\n" + HIDDEN,
    "a bare CR head": b"POST /attack HTTP/1.1\rHost: a\rContent-Length: 0\r\r" + HIDDEN,
    "a line without a colon": HEAD + b"GET /hidden HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a request in a target": b"GET /attack%20HTTP/1.1%0d%0a%0d%0aGET%20/hidden HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "a space in a target": b"GET /attack HTTP/1.1\x20/hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    "a line break in a header": HEAD + b"X: a\r\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "an upgrade": b"GET /attack HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + HIDDEN,
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + HIDDEN,
    "an absolute target": b"GET http://b/attack HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /attack\r\n" + HIDDEN,
    "a chunk size below zero": chunked(b"-1\r\n\r\n"),
    "a chunk size of nothing": chunked(b"\r\n\r\n"),
    "a chunk size with an underscore": chunked(b"0_0\r\n\r\n"),
    "a chunk size behind a space": chunked(b" 0\r\n\r\n"),
    "a chunk size before a space": chunked(b"0 \r\n\r\n"),
    "a chunk extension with a bare CR": chunked(b"0;a\rb\r\n\r\n"),
    "a chunk extension with a NUL": chunked(b"0;a\0b\r\n\r\n"),
    "an endless chunk extension": chunked(b"0;" + b"a" * 300_000 + b"\r\n\r\n"),
    "endless trailers": chunked(b"0\r\n" + b"x: y\r\n" * 50_000 + b"\r\n"),
    "a trailer that is none": chunked(b"0\r\nx\r\n\r\n"),
    "a NUL in a value": HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a CR in a value": HEAD + b"X: a\rb\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a control character in a value": HEAD + b"X: a\x01b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a NUL in a name": HEAD + b"X\0: a\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a space in a name": HEAD + b"X y: a\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a space before a colon": HEAD + b"X : a\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "an empty name": HEAD + b": a\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a header of 1 MB": HEAD + b"X: " + b"a" * (1 << 20) + b"\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "5,000 headers": HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n" + HIDDEN,
    "a target of 100 KB": b"GET /attack" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "a method of 10 KB": b"G" * 10_000 + b" /attack HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "HTTP/1.2": b"GET /attack HTTP/1.2\r\nHost: a\r\n\r\n" + HIDDEN,
    "HTTP/3.0": b"GET /attack HTTP/3.0\r\nHost: a\r\n\r\n" + HIDDEN,
    "no host": b"GET /attack HTTP/1.1\r\n\r\n" + HIDDEN,
    "an empty line first": b"\r\n" + HEAD + b"Content-Length: 0\r\n\r\n" + HIDDEN,
}  # fmt: skip
"""Each asks for ``/attack``; who reads it otherwise may find a request for ``/hidden`` within or behind it."""
