"""The console by itself, served as the API is."""

import asyncio
import ipaddress
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp

from infra.api.behind_proxy import BehindProxy
from infra.api.body_limit import BodyLimit
from infra.api.leaving import BEFORE_STOP, Server
from infra.api.server import configuration
from infra.auth import signing_key
from infra.console import Console, StrictHeaders, make_link
from infra.errors import DependencyDown, InvalidSetting
from infra.ports import require_free
from infra.postgres import Database
from infra.settings import Settings
from infra.telemetry import start_logging
from producers.broker import Broker
from streams.jobs.watch import Watch

# A page holds one connection at a time, a plan that is applied two.
_CONNECTIONS: Final = 5
# A page of jobs, all of them chosen, is some 30 kB.
_LONGEST_FORM: Final = 256 * 1024


def serve_console(host: str, port: int, *, root_path: str | None, subject: str, say: Callable[[str], None]) -> None:
    """Serve the console until a signal stops it; say where it is.

    What it says has a link that signs its caller in once.

    Raises:
        InvalidSetting: others could reach it, and no key is set that checks their tokens.
        PortTaken: another program listens there.
        NoSigningKey: the key is too short.
    """
    started = start_logging("console")
    settings = started if root_path is None else Settings(root_path=root_path)
    if settings.signing_key is None:
        require_loopback(host)
    else:
        signing_key(settings)
    require_free(port, "--port", host=host)
    say(f"Console     {asyncio.run(_address(settings, host, port, subject))}")
    # Uvicorn raises the signal again once it has stopped in good order; that is no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    Server(configuration(create_app(settings), settings, host=host, port=port)).run()


def create_app(settings: Settings) -> ASGIApp:
    """Return the console as an app with connections of its own.

    It stands behind the limits that the API has.
    """
    database = Database(settings.database_url, size=_CONNECTIONS)
    broker = Broker(settings, name="console")
    console = Console(settings, database, broker)
    watch = Watch(database, "console")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        watch.start()
        try:
            yield {BEFORE_STOP: [console.end_streams]}
        finally:
            for close in (watch.close, console.close, broker.close, database.close):
                await close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.add_middleware(BodyLimit, limit=_LONGEST_FORM)
    app.add_middleware(StrictHeaders)
    app.add_middleware(BehindProxy, root_path=settings.root_path, trusted=settings.trusted_proxies)
    app.mount("", console)
    return app


def require_loopback(host: str) -> None:
    """Raise InvalidSetting unless an address is this machine's own."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InvalidSetting(
            "TEAMFIT_SIGNING_KEY",
            f"is not set, so the console cannot tell who calls and listens on this machine alone, not on {host}: set "
            "the API's key, or leave --host out",
        )


async def _address(settings: Settings, host: str, port: int, subject: str) -> str:
    """Return the address with a link; where Postgres is away, or not migrated, without."""
    shown = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)  # noqa: S104 - an address to show
    base = f"http://{shown}:{port}{settings.root_path}"
    database = Database(settings.database_url, size=1)
    try:
        return f"{base}/sign-in/{await make_link(database, subject)}  (signs in once, within half an hour)"
    except DependencyDown as error:
        return f"{base}/  (no link to sign in: {error})"
    finally:
        await database.close()
