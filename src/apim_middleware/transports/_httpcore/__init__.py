"""The way to an upstream on httpcore or httpcore2, the connections under httpx and httpx2, on asyncio and trio.

It uses these connections, not ``httpx.AsyncHTTPTransport`` around them, for what cannot be had from above: bytes beyond
a response never reach the next one, an answer is heard while the request body is still on its way, interim responses
are bounded, and a free connection is found without walking all of them.

``core`` is what is used of either library, ``transport`` sends, ``pool`` keeps the free lines of one event loop,
``line`` is one connection in the hands of one exchange, ``wire`` is the bytes of that connection, ``upload`` the
request body, ``answer`` the response.
"""
