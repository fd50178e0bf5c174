"""An upstream of plain sockets, which reads requests more strictly than anybody and says what a test tells it to."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9a-z]+): ([\t -~\x80-\xff]*)")


def exactly(heard: IO[bytes], size: int | None) -> bytes:
    """So many bytes, or a line; ConnectionError when the other side has hung up before."""
    data = heard.readline() if size is None else heard.read(size)
    if len(data) < size if size is not None else not data.endswith(b"\r\n"):
        raise ConnectionError("broken off")
    return data


class Upstream:
    """Answers each request with its target and the size of its body.

    ``/hostile/NUMBER`` gets the response of that number and the end of what is said, ``/excess/NUMBER`` the response.
    """

    def __init__(self, responses: Sequence[bytes]) -> None:
        self.responses = responses
        self.unclear: list[bytes] = []
        """What it heard that is no request, or could be read in two ways."""
        self.port = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Its origin, as long as it serves."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield f"http://127.0.0.1:{self.port}"

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as heard, contextlib.suppress(OSError):
            while self._answer(connection, heard):
                pass

    def _answer(self, connection: socket.socket, heard: IO[bytes]) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = heard.readline(1 << 20)
            if not line:
                return False
            head += line
        first, *lines = head[:-4].split(b"\r\n")
        request, fields = _REQUEST_LINE.fullmatch(first), [_FIELD.fullmatch(line) for line in lines]
        values: dict[bytes, list[bytes]] = {}
        for each in fields:
            values.setdefault(each[1] if each else b"", []).append(each[2] if each else b"")
        body = None if request is None or b"" in values else self._body(values, heard)
        if request is None or body is None or len(values.get(b"host", ())) != 1:
            self.unclear.append(head)
            return False
        return self._say(connection, request, values, body)

    def _body(self, values: Mapping[bytes, list[bytes]], heard: IO[bytes]) -> bytes | None:
        lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
        if len(lengths) + len(codings) > 1 or codings not in ([], [b"chunked"]):
            return None
        if not codings:
            return exactly(heard, int(lengths[0])) if lengths else b""
        body = b""
        while size := int(exactly(heard, None), 16):
            body += exactly(heard, size)
            if exactly(heard, 2) != b"\r\n":
                return None
        return body if exactly(heard, None) == b"\r\n" else None

    def _say(
        self, connection: socket.socket, request: re.Match[bytes], values: Mapping[bytes, list[bytes]], body: bytes
    ) -> bool:
        target = request[2]
        if target.startswith(b"/hostile/"):
            connection.sendall(self.responses[int(target.removeprefix(b"/hostile/"))])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
            return False
        if target.startswith(b"/excess/"):
            connection.sendall(self.responses[int(target.removeprefix(b"/excess/"))])
            return True
        seen = b"%b %b" % (request[1], target[:50])
        if values.get(b"x-seen", [seen]) != [seen]:
            self.unclear.append(target)
        said = b"%b %d" % (target, len(body))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))
        return True
