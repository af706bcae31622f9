"""Every page of the console is guarded, shown and kept live in the same way."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import asyncpg
import structlog
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.actions import Act, act_as, note_refusal
from infra.advice import explained
from infra.console.live import Board
from infra.console.rendering import Fields, Templates
from infra.console.sessions import Session, Sessions
from infra.console.visits import (
    NotAllowed,
    View,
    Visit,
    address_of,
    came_from_elsewhere,
    form_of,
    query_of,
    require_each_once,
    root_of,
)
from infra.errors import DependencyDown, Refused, TeamfitError
from infra.identity import Tokens
from infra.postgres import Database
from infra.settings import Settings
from producers.broker import Broker

log = structlog.get_logger(__name__)

COOKIE: Final = "teamfit_console"
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field
# A session's end reaches a stream within this time, and proxies see that it lives.
_PATIENCE_S: Final = 10.0
_STREAM_HEADERS: Final = {"X-Accel-Buffering": "no"}

Model: TypeAlias = Callable[[Visit], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Desk:
    """The services that pages share, and the routes that guard them."""

    settings: Settings
    database: Database
    broker: Broker
    sessions: Sessions
    tokens: Tokens
    board: Board = field(default_factory=Board)
    templates: Templates = field(default_factory=Templates)

    # --- routes ---

    def page(self, path: str, view: View) -> Route:
        """Return the route of a page that whoever is signed in may see."""

        async def endpoint(request: Request) -> Response:
            session = await self.session_of(request)
            if session is None:
                return self._to_sign_in(request)
            return await self._answered(self._visit(request, session), view)

        return Route(path, endpoint, methods=["GET"])

    def live_page(self, path: str, template: str, model: Model) -> list[Route]:
        """Return the routes of a page and of its live part, the template's block `live`."""

        async def view(visit: Visit) -> Response:
            address = f"{visit.root}/live{_own_path(visit.request)}"
            return self.show(visit, template, live=address, **await model(visit))

        async def stream(request: Request) -> Response:
            session = await self.session_of(request)
            if session is None:
                return Response("not signed in", status_code=401)
            visit = self._visit(request, session)

            async def follow(visit: Visit) -> Response:
                self.board.admit()
                await model(visit)  # what cannot be shown is refused with its status, before the stream begins
                lines = self._lines(visit, template, model)
                return StreamingResponse(lines, media_type="text/event-stream", headers=_STREAM_HEADERS)

            return await self._answered(visit, follow)

        # The first that fits is taken, so the stream stands first: no page's parameter may be taken for it.
        live = Route(f"/live{path}", stream, methods=["GET"])
        live.methods = {"GET"}  # a HEAD would have the page read until its caller hangs up
        return [live, self.page(path, view)]

    def action(self, path: str, view: View) -> Route:
        """Return the route of a form by which an operator changes something."""
        return self._form(path, view, operators_only=True)

    def action_of_anybody(self, path: str, view: View) -> Route:
        """Return the route of a form that viewers may send too."""
        return self._form(path, view, operators_only=False)

    def _form(self, path: str, view: View, *, operators_only: bool) -> Route:
        async def endpoint(request: Request) -> Response:
            session = await self.session_of(request)
            if session is None:
                return self._refused(request, None, 401, "you are not signed in, or no longer; nothing was done")
            visit = self._visit(request, session)
            act_as(session.subject, "console")
            try:
                fields, chosen = await form_of(request)
                _require_own_form(request, session, fields)
                if operators_only:
                    _require_operator(visit)
            except NotAllowed as error:
                await note_refusal(self.database, Act("request", f"POST {address_of(request)}"), str(error))
                return self._refused(request, session, error.status, str(error))
            own = {name: value for name, value in fields.items() if name != FORM_TOKEN}
            log.info("console.asked", path=address_of(request), subject=session.subject)
            return await self._answered(replace(visit, fields=own, chosen=chosen), view)

        return Route(path, endpoint, methods=["POST"])

    # --- answers ---

    def show(self, visit: Visit, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page."""
        return HTMLResponse(self.templates.page(template, self._values(visit, values)), status_code=status)

    def show_to_anybody(self, request: Request, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page that needs no session."""
        common = {"root": root_of(request), "session": None, "may_act": False, "live": None}
        return HTMLResponse(self.templates.page(template, {**common, **values}), status_code=status)

    def go(self, visit: Visit, path: str) -> Response:
        """Send the browser on after an action, so that reloading does not act again."""
        return RedirectResponse(visit.root + path, status_code=303)

    async def session_of(self, request: Request) -> Session | None:
        """Return the session of whoever asks. Postgres being away is as no session: no one gets in unchecked."""
        secret = request.cookies.get(COOKIE)
        return await self.sessions.find(secret) if secret else None

    # --- inside ---

    def _visit(self, request: Request, session: Session) -> Visit:
        reads = session.role == "operator" or self.settings.console_viewers_read_texts
        return Visit(request, session, query_of(request), (), reads)

    def _values(self, visit: Visit, values: Mapping[str, object]) -> dict[str, object]:
        return {
            "root": visit.root,
            "session": visit.session,
            "may_act": visit.may_act,
            "reads_texts": visit.reads_texts,
            "address": address_of(visit.request).removeprefix("/live"),
            "live": None,
            "fields": Fields(visit.fields),
            **values,
        }

    async def _lines(self, visit: Visit, template: str, model: Model) -> AsyncIterator[bytes]:
        async def render() -> str:
            return self.templates.live(template, self._values(visit, await model(visit)))

        yield b"retry: 3000\n\n"
        key = (visit.root, str(visit.request.url), visit.session.role)
        async for html in self.board.follow(key, render, patience_s=_PATIENCE_S):
            if await self.sessions.find(visit.session.secret) is None:
                yield b"event: ended\ndata: the session has ended\n\n"
                return
            yield b": still there\n\n" if html is None else _message(html)

    async def _answered(self, visit: Visit, view: View) -> Response:
        """Return what a view answers, or a page that says what is wrong and what to do."""
        try:
            require_each_once(visit.request)
            return await view(visit)
        except ValidationError as error:
            return self._refused(visit.request, visit.session, 422, explained(error, whole="form"))
        except Refused as error:
            status = 404 if error.code.endswith("_not_found") else 422 if error.code.startswith("invalid") else 409
            return self._refused(visit.request, visit.session, status, str(error))
        except DependencyDown as error:
            return self._refused(visit.request, visit.session, 503, str(error))
        except TeamfitError as error:
            unknown = type(error).__name__.startswith("Unknown")
            return self._refused(visit.request, visit.session, 404 if unknown else 409, str(error))
        except asyncpg.DataError:
            return self._refused(visit.request, visit.session, 422, "a value cannot be looked for; mend the address")

    def _refused(self, request: Request, session: Session | None, status: int, why: str) -> Response:
        title = HTTPStatus(status).phrase
        if session is None:
            return self.show_to_anybody(request, "refused.html", status=status, title=title, why=why)
        return self.show(self._visit(request, session), "refused.html", status=status, title=title, why=why)

    def _to_sign_in(self, request: Request) -> Response:
        root = root_of(request)
        if request.headers.get("sec-fetch-site") == "cross-site":
            # The cookie is SameSite=Strict, so a link from another site arrives without it; from here it is sent.
            return self.show_to_anybody(request, "onward.html")
        return RedirectResponse(f"{root}/sign-in?next={quote(_own_path(request), safe='')}", status_code=303)


def _own_path(request: Request) -> str:
    """Return an address below the console's prefix, with what it asks for."""
    return address_of(request) + (f"?{request.url.query}" if request.url.query else "")


def _require_own_form(request: Request, session: Session, fields: Mapping[str, str]) -> None:
    if came_from_elsewhere(request):
        raise NotAllowed(403, "this form came from another site; nothing was done")
    if not hmac.compare_digest(fields.get(FORM_TOKEN, "").encode(), session.form_token.encode()):
        raise NotAllowed(403, "this form is not of this session; go back, load the page again and repeat it")


def _require_operator(visit: Visit) -> None:
    if not visit.may_act:
        raise NotAllowed(403, "a viewer may look at everything here and change nothing; nothing was done")


def _message(html: str) -> bytes:
    # Line breaks of all kinds end a field of an event, so each line is a field of its own.
    lines = html.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
