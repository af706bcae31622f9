"""The console is an ASGI app of its own.

`teamfit console` serves it alone; the API has it mounted. Each answer below its address has its headers, errors and
refused bodies too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.bugs import Bugs, chain_of, frames_of
from infra.console.applying import Applying
from infra.console.desk import Desk
from infra.console.pages import (
    actions,
    erase,
    failed,
    guide,
    jobs,
    llm,
    organizations,
    overview,
    plan_shares,
    plans,
    schedule,
    sign_in,
    streams,
    webhooks,
    workers,
)
from infra.console.sessions import Sessions
from infra.errors import DependencyDown
from infra.identity import Tokens
from infra.operations.overview import Overviews
from infra.postgres import Database
from infra.settings import Settings
from producers.broker import Broker

log = structlog.get_logger(__name__)

_STATIC: Final = Path(__file__).with_name("static")


class Console:
    """The console as an ASGI app. Whoever makes it closes it, and then its database and broker."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self._desk = desk = Desk(settings, database, broker, Sessions(database), Tokens.of(settings))
        self._applying = applying = Applying()
        self._overviews = overviews = Overviews(settings, database, broker)
        routes: list[BaseRoute] = [
            *sign_in.routes(desk),
            *overview.routes(desk, overviews),
            *jobs.routes(desk),
            *jobs.one_job_routes(desk),
            *failed.routes(desk),
            *plans.replay_routes(desk, applying),
            *plans.cancel_routes(desk, applying),
            *plans.discard_routes(desk, applying),
            *organizations.routes(desk),
            *plan_shares.routes(desk),
            *erase.routes(desk),
            *llm.routes(desk),
            *streams.routes(desk),
            *schedule.routes(desk),
            *webhooks.routes(desk),
            *workers.routes(desk),
            *actions.routes(desk),
            *guide.routes(desk),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]
        self._routes = routes
        pages = Starlette(
            routes=routes,
            exception_handlers={404: self._not_found, 405: self._other_method, DependencyDown: self._outage},
        )
        # A redirect to an address with or without its slash would name the host that a proxy hides.
        pages.router.redirect_slashes = False
        pages.add_middleware(Bugs, answer=self._bug)
        self._app = StrictHeaders(pages)

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """Return every route."""
        return self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self._app(scope, receive, send)

    def end_streams(self) -> None:
        """Have live pages come back to another process: this one is about to stop."""
        self._desk.board.end()

    async def close(self) -> None:
        """Stop what runs for those who look and act. Plans under way can be gone on with."""
        await self._desk.board.close()
        await self._applying.close()
        await self._overviews.close()

    async def _not_found(self, request: Request, _error: Exception) -> Response:
        why = "there is no such page; begin at the overview"
        return self._desk.show_to_anybody(request, "refused.html", status=404, title="Not Found", why=why)

    async def _other_method(self, request: Request, error: Exception) -> Response:
        why = "this address does not take that method; go back, and use the page's own buttons"
        answer = self._desk.show_to_anybody(request, "refused.html", status=405, title="Method Not Allowed", why=why)
        answer.headers["Allow"] = (getattr(error, "headers", None) or {}).get("Allow", "GET")
        return answer

    def _bug(self, scope: Scope, error: Exception, error_id: str) -> Response:
        log.error("console.failed", error_id=error_id, error=chain_of(error), where=frames_of(error))
        why = f"something went wrong on our side; the console's log has the error under error_id {error_id}"
        return self._desk.show_to_anybody(
            Request(scope), "refused.html", status=500, title="Internal Server Error", why=why
        )

    async def _outage(self, request: Request, error: Exception) -> Response:
        return self._desk.show_to_anybody(
            request, "refused.html", status=503, title="Service Unavailable", why=str(error)
        )


_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Browsers that send no referrer send no origin with a form either.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store, no-transform",
}


class StrictHeaders:
    """Every answer of the console forbids what its pages do not need.

    Args:
        app: what answers.
        below: the path below which the console is served; empty: all is the console's.
    """

    def __init__(self, app: ASGIApp, below: str = "") -> None:
        self._app, self._below = app, below

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if "/static/" in scope["path"] and message["status"] == 200:  # noqa: PLR2004 - found
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        await self._app(scope, receive, sending if self._is_ours(scope) else send)

    def _is_ours(self, scope: Scope) -> bool:
        if scope["type"] != "http":
            return False
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")).rstrip("/"))
        return path == self._below or path.startswith(f"{self._below}/")
