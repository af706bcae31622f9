"""The API on a real socket, and a client for it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from starlette.types import ASGIApp

from infra.api import create_api
from infra.api.leaving import Server
from infra.api.server import BoundedConnection, configuration
from infra.auth import issue_token
from infra.settings import Settings
from tests.waiting import wait_for

SIGNING_KEY = "a key that is only good for tests, and long enough"
UNUSED_URL = "redis://127.0.0.1:1/0"  # nobody listens on port 1


def api_settings(*, database_url: str, broker_url: str = UNUSED_URL) -> Settings:
    """Return settings for an API on these servers."""
    return Settings(database_url=database_url, broker_url=broker_url, signing_key=SIGNING_KEY, _env_file=None)  # type: ignore[arg-type]


def bearer(organization_id: str = "acme", *scopes: str) -> dict[str, str]:
    """Return the header that speaks for an organization."""
    token = issue_token(SIGNING_KEY, organization_id=organization_id, scopes=scopes or ("jobs",))
    return {"Authorization": f"Bearer {token}"}


async def asked(answer: Any) -> tuple[int, Any]:
    """Return the status and the JSON of an answer that is under way."""
    async with answer as got:
        return got.status, await got.json()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """Give an HTTP client of an API that is served until the block ends."""
    async with serving_app(create_api(settings), settings) as session:
        yield session


@asynccontextmanager
async def serving_app(
    app: ASGIApp, settings: Settings | None = None, *, connection: type[BoundedConnection] = BoundedConnection
) -> AsyncIterator[aiohttp.ClientSession]:
    """Give an HTTP client of this app."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(configuration(app, settings or api_settings(database_url="unused"), connection=connection))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await wait_for(lambda: server.started, what="the API to start")
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with aiohttp.ClientSession(address) as session:
                yield session
        finally:
            server.should_exit = True
            await running
