"""An answer is sent word by word while it is written.

It is a stream of server-sent events.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

import asyncio
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import orjson
from aiohttp import web

_WORD: Final = re.compile(r"\s*\S+\s*")
# More often would cost the machine more than the answer.
_MOST_WRITES: Final = 12


async def send(
    request: web.Request,
    answer: Mapping[str, Any],
    *,
    latency_s: float,
    headers: Mapping[str, str],
    states_usage: bool,
    is_cut: bool,
) -> web.StreamResponse:
    """Send an answer by and by, or its first half if it is cut."""
    events = [b"data: %s\n\n" % orjson.dumps(piece) for piece in _pieces(answer, states_usage=states_usage)]
    events.append(b"data: [DONE]\n\n")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
    await response.prepare(request)
    writes = _MOST_WRITES if latency_s else 1
    now = asyncio.get_running_loop().time
    began = now()
    for number in range(writes):
        # By the clock: a dozen sleeps, each a little too long, would make the answer late.
        await asyncio.sleep(began + latency_s * (number + 1) / writes - now())
        first, last = (len(events) * one // writes for one in (number, number + 1))
        if is_cut and 2 * number >= writes - 1:
            await response.write(b"".join(events[first : (first + last) // 2]))
            abort(request)
        await response.write(b"".join(events[first:last]))
    await response.write_eof()
    return response


async def send_half(request: web.Request, body: bytes) -> NoReturn:
    """Send the first half of a whole answer, and reset the connection."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    abort(request)


def abort(request: web.Request) -> NoReturn:
    """Reset the connection, as a proxy that dies would.

    The client cannot know whether its call was billed.
    """
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            linger_not = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        transport.abort()
    # The answer that would follow has no client to go to.
    raise ConnectionResetError


def _pieces(answer: Mapping[str, Any], *, states_usage: bool) -> Iterator[Mapping[str, Any]]:
    choice = answer["choices"][0]
    message = choice["message"]
    frame = {"id": answer["id"], "object": "chat.completion.chunk", "created": answer["created"]}
    frame |= {"model": answer["model"]} | ({"usage": None} if states_usage else {})

    def piece(delta: Mapping[str, Any], reason: str | None = None) -> Mapping[str, Any]:
        return {**frame, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}

    yield piece({"role": "assistant", "content": "", "refusal": None})
    for word in _WORD.findall(message["content"] or ""):
        yield piece({"content": word})
    for word in _WORD.findall(message["refusal"] or ""):
        yield piece({"refusal": word})
    yield piece({}, choice["finish_reason"])
    if states_usage:
        yield {**frame, "choices": [], "usage": answer["usage"]}
