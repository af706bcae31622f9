"""A reverse proxy as people put one before the API: it serves it below a prefix and rewrites what passes."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

PREFIX = "/teamfit"
# Those of one connection, which a proxy has two of; and the length, which changes with the coding.
_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


@asynccontextmanager
async def proxied(
    api: aiohttp.ClientSession,
    *,
    strips_prefix: bool = True,
    adds: Mapping[str, str] | None = None,
    rewrites_tag: Callable[[str], str] = str,
) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client of a proxy before this API.

    Args:
        api: a client of the API itself.
        strips_prefix: whether the API sees the address without the prefix.
        adds: headers that it adds to a request.
        rewrites_tag: what it makes of an answer's `ETag`.
    """

    async def forward(request: web.Request) -> web.StreamResponse:
        path = request.path_qs.removeprefix(PREFIX) if strips_prefix else request.path_qs
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        async with api.request(
            request.method,
            path,
            data=await request.read(),
            headers={**headers, **(adds or {})},
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _OF_THE_CONNECTION:
                    response.headers[name] = rewrites_tag(value) if name == "ETag" else value
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session
    finally:
        await runner.cleanup()
