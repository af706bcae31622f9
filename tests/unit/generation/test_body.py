"""An endpoint cannot fill a worker's memory, and a redirect shows the prompt to no other host."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import SecretStr

from consumers.generation.body import MOST_BYTES
from consumers.generation.dialect import strongest
from consumers.generation.llm import Llm
from consumers.generation.llm_errors import LlmFailure
from infra.settings import Settings
from tests.served import served
from tests.unit.generation.test_packing import GOOD, body

_CHUNK = b" " * 65_536
_ANSWER = body({"content": GOOD})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def calling(handler: Handler) -> AsyncIterator[Llm]:
    """Serve one endpoint, and yield a client of it."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with served(app) as address:
        settings = Settings.model_validate({"openai_api_key": SecretStr("k"), "openai_base_url": f"{address}/v1"})
        llm = Llm(settings, connections=2)
        try:
            yield llm
        finally:
            await llm.close()


@pytest.mark.parametrize("status", [200, 400, 503])
async def test_a_body_without_end_is_not_read_to_its_end(status: int) -> None:
    """The connection is closed at the limit; the answer is the endpoint's failure, whatever its status."""
    sent, closed = 0, asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        try:
            while sent < 100 * MOST_BYTES:
                await response.write(_CHUNK)
                sent += len(_CHUNK)
        except ConnectionError:
            closed.set()
        return response

    async with calling(endless) as llm:
        with pytest.raises(LlmFailure):
            await llm.complete("", strongest("auto"))
        await asyncio.wait_for(closed.wait(), 10)
    # Buffers of both sides hold a few megabytes.
    assert sent < 10 * MOST_BYTES


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_compressed_bomb_is_not_inflated(compress: Callable[[bytes], bytes], encoding: str) -> None:
    """A few kilobytes that hold 20 MB are read up to the limit, and no other encoding is undone."""
    bomb = compress(b" " * (5 * MOST_BYTES))

    async def explode(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": encoding})

    async with calling(explode) as llm:
        with pytest.raises(LlmFailure):
            await llm.complete("", strongest("auto"))


@pytest.mark.parametrize(("compress", "encoding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate")])
async def test_a_compressed_answer_is_read(compress: Callable[[bytes], bytes], encoding: str) -> None:
    """Compression is the usual case behind a proxy."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=compress(_ANSWER), headers={"Content-Encoding": encoding})

    async with calling(answer) as llm:
        assert len((await llm.complete("", strongest("auto"))).activities.activities) == 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """The address in it is named to the operator, and not contacted."""
    calls: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=status, headers={"Location": f"{request.url.origin()}/elsewhere"})

    async with calling(elsewhere) as llm:
        with pytest.raises(LlmFailure, match="/elsewhere") as raised:
            await llm.complete("", strongest("auto"))
    assert raised.value.code == "llm_misconfigured"
    assert calls == ["/v1/chat/completions"]
