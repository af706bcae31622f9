"""The API accepts tokens of a provider whose keys it fetches over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web

from infra.key_sets import fetch
from tests.api_server import api_settings, bearer, serving
from tests.unit.test_identity import AUDIENCE, ISSUER, OTHER_RSA_KEY, RSA_KEY, public, signed

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def provider(answer: Answer) -> AsyncIterator[str]:
    """Give the address of a provider's keys that answers so."""
    app = web.Application()
    app.router.add_get("/keys", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/keys"
    finally:
        await runner.cleanup()


async def _keys(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"keys": [public(RSA_KEY, "r")]})


async def _redirect(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


async def _long(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b" " * 300_000)


async def _broken(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    assert request.transport is not None
    request.transport.close()
    return response


async def test_the_api_takes_the_providers_tokens(database_url: str) -> None:
    """They are as good as our own, for their organization and scopes alone; a stranger's is refused."""
    async with provider(_keys) as url:
        described = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks_url": url}
        settings = api_settings(database_url=database_url).model_copy(update=described)
        async with serving(settings) as http:
            address = f"/api/jobs/{uuid4()}"
            for token, status, code in [
                (signed(), 404, "job_not_found"),
                (signed(scope="other"), 403, "insufficient_scope"),
                (signed(OTHER_RSA_KEY), 401, "token_invalid"),
                (signed(exp=1), 401, "token_expired"),
            ]:
                async with http.get(address, headers={"Authorization": f"Bearer {token}"}) as answer:
                    assert (answer.status, (await answer.json(content_type=None))["code"]) == (status, code)


async def test_without_the_providers_keys_its_tokens_wait_and_ours_go_on(database_url: str) -> None:
    """503 says when to come again; nobody is told that a good token is a bad one."""
    described = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks_url": "http://127.0.0.1:1/keys"}
    settings = api_settings(database_url=database_url).model_copy(update=described)
    async with serving(settings) as http:
        address = f"/api/jobs/{uuid4()}"
        async with http.get(address, headers={"Authorization": f"Bearer {signed()}"}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
            assert (await answer.json(content_type=None))["code"] == "identity_unavailable"
        async with http.get(address, headers=bearer()) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("answer", [_redirect, _long, _broken], ids=["redirect", "too long", "cut off"])
async def test_an_answer_that_is_no_set_of_keys_is_an_error(answer: Answer) -> None:
    """Nothing is read from elsewhere or without bounds."""
    async with provider(answer) as url:
        with pytest.raises((OSError, aiohttp.ClientError)):
            await fetch(url)
