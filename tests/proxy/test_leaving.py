"""Clients that leave real servers: the upstream misses them within a second, and what they held is free again."""

import contextlib
import socket
import threading

import pytest
from tests.servers import LOOPBACK, PATIENCE

from .gateways import SERVERS, fronted

AT_ONCE = 1.0
"""Seconds within which an upstream misses a client; about a tenth of them is usual."""

HEAD = b" / HTTP/1.1\r\nHost: a\r\n"
BEFORE_ITS_END = b"POST" + HEAD + b"Content-Length: 10\r\n\r\nhalf"
WHOLE = b"GET" + HEAD + b"Connection: close\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


class Upstream:
    """Answers the first connection with what it is told to, and the others well."""

    def __init__(self, said):
        self.said, self.asked, self.missed = said, threading.Event(), threading.Event()

    @contextlib.contextmanager
    def listening(self):
        with socket.create_server((LOOPBACK, 0)) as listener:
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"

    def _serve(self, listener):
        first, _ = listener.accept()
        with first, contextlib.suppress(OSError):
            first.recv(65536)
            first.sendall(self.said)
            self.asked.set()
            while first.recv(65536):
                pass
        self.missed.set()
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(OK)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("request_", "said"),
    [(BEFORE_ITS_END, b""), (WHOLE, b""), (WHOLE, HALF)],
    ids=["in its request", "before the response", "in the response"],
)
def test_a_client_that_leaves_is_missed_and_holds_nothing_any_more(server, request_, said, tmp_path):
    """The one permit there is goes to the next client, who would be refused otherwise."""
    upstream = Upstream(said)
    with upstream.listening() as origin, fronted(server, "one_at_a_time", origin, tmp_path) as front:
        with front.connect() as client:
            client.sendall(request_)
            assert upstream.asked.wait(PATIENCE)
            assert front.talk(WHOLE).startswith(b"HTTP/1.1 429")
        assert upstream.missed.wait(AT_ONCE)
        assert front.talk(WHOLE).startswith(b"HTTP/1.1 200")
