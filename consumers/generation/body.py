"""This module bounds an answer's body, so that no endpoint fills a worker's memory.

The rest of a longer body is not read, and its connection is closed. What is left of it is no JSON, and is treated so.
"""

import zlib
from collections.abc import AsyncIterator
from typing import Final

import httpx2

# Three activities at their longest have about two million characters; real ones have a few thousand.
MOST_BYTES: Final = 4 * 1024 * 1024
# Each piece of a stream has a frame, which is many times as long. What the pieces hold is bounded as they are read.
MOST_STREAM_BYTES: Final = 16 * MOST_BYTES
ACCEPT_ENCODING: Final = "gzip, deflate"
# The `openai` package hands on a response that it has not read if the request says so (`with_streaming_response`).
BY_PIECE: Final = {"x-stainless-raw-response": "stream"}
_EITHER_HEADER: Final = zlib.MAX_WBITS | 32


async def bound(response: httpx2.Response) -> None:
    """Limit a response to its first bytes, decompressed. The HTTP client calls this hook before it reads."""
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    is_read_by_piece = BY_PIECE.items() <= dict(response.request.headers).items()
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(
            response.stream,
            compressed=encoding in {"gzip", "x-gzip", "deflate"},
            most=MOST_STREAM_BYTES if is_read_by_piece and response.is_success else MOST_BYTES,
        )


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, *, compressed: bool, most: int) -> None:
        self._stream = stream
        self._most = most
        # Not by the HTTP client, which decompresses whatever comes: 1 MB of it can hold 1 GB.
        self._inflate = zlib.decompressobj(_EITHER_HEADER) if compressed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for raw in self._stream:
            try:
                chunk = self._inflate.decompress(raw, left) if self._inflate else raw[:left]
            except zlib.error:
                return
            yield chunk
            left -= len(chunk)
            if left == 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()
