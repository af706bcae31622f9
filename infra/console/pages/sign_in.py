"""Sign-in by a bearer token or by a link that works once, and sign-out.

A form of somebody who is not signed in yet carries a token too: it is bound to a cookie that the form's page sets, so
that no other site can sign a browser in as somebody else.
"""

import hmac
import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from infra.auth import InvalidToken, NoSigningKey
from infra.console.desk import COOKIE, FORM_TOKEN, Desk
from infra.console.sessions import LinkUsed, Session, form_token, role_of
from infra.console.visits import NotAllowed, Visit, came_from_elsewhere, form_of, query_of, root_of
from infra.errors import Refused, TeamfitError

_VISITOR: Final = "teamfit_console_visitor"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_VISITOR_S: Final = 3_600


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""
    door = _Door(desk)
    return [
        Route("/sign-in", door.show, methods=["GET"]),
        Route("/sign-in", door.by_token, methods=["POST"]),
        # A link is shown first and used by its form: programs that look at links before people do must not use it up.
        Route("/sign-in/{link}", door.show_link, methods=["GET"]),
        Route("/sign-in/{link}", door.by_link, methods=["POST"]),
        desk.action_of_anybody("/sign-out", door.sign_out),
    ]


class _Door:
    """Lets people in and out."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, request: Request) -> Response:
        return self._form(request, status=200)

    async def show_link(self, request: Request) -> Response:
        return self._form(request, status=200)

    async def by_token(self, request: Request) -> Response:
        """Exchange a bearer token for a session."""
        try:
            fields = await self._own_form(request)
            caller = await self._desk.tokens.read(fields.get("token", ""))
            session = await self._desk.sessions.begin(caller.subject, role_of(caller), until=caller.expires_at)
        except (NotAllowed, InvalidToken, NoSigningKey, Refused) as error:
            return self._form(request, status=_status(error), why=str(error))
        return self._let_in(request, session, fields.get("next", ""))

    async def by_link(self, request: Request) -> Response:
        """Use up a link."""
        try:
            await self._own_form(request)
            session = await self._desk.sessions.begin_by_link(request.path_params["link"])
        except (NotAllowed, LinkUsed) as error:
            return self._form(request, status=_status(error), why=str(error))
        return self._let_in(request, session, "")

    async def sign_out(self, visit: Visit) -> Response:
        """End the session on the server."""
        await self._desk.sessions.end(visit.session)
        answer = RedirectResponse(f"{visit.root}/sign-in", status_code=303)
        answer.delete_cookie(COOKIE, path=visit.root or "/")
        return answer

    async def _own_form(self, request: Request) -> dict[str, str]:
        """Return the form's fields. Raises NotAllowed unless it came from our page, over TLS or on this machine."""
        fields, _ = await form_of(request)
        if came_from_elsewhere(request):
            raise NotAllowed(403, "this form came from another site")
        if request.url.scheme != "https" and request.url.hostname not in _LOOPBACK:
            raise NotAllowed(403, "the console signs in over https, or on the machine itself; open it so")
        expected = form_token(request.cookies.get(_VISITOR, secrets.token_urlsafe()))
        if not hmac.compare_digest(fields.get(FORM_TOKEN, "").encode(), expected.encode()):
            raise NotAllowed(403, "this form is too old, or cookies are off; try again")
        return fields

    def _form(self, request: Request, *, status: int, why: str | None = None) -> Response:
        link = request.path_params.get("link")
        visitor = request.cookies.get(_VISITOR) or secrets.token_urlsafe(32)
        answer = self._desk.show_to_anybody(
            request,
            "sign_in.html",
            status=status,
            why=why,
            link=link if status == 200 else None,  # noqa: PLR2004 - a link that was refused is not offered again
            takes_tokens=self._desk.settings.signing_key is not None,
            next=query_of(request).get("next", ""),
            form_token=form_token(visitor),
        )
        self._set_cookie(request, answer, _VISITOR, visitor, _VISITOR_S)
        return answer

    def _let_in(self, request: Request, session: Session, onward: str) -> Response:
        answer = RedirectResponse(root_of(request) + _own_address(onward), status_code=303)
        life = (session.expires_at - self._desk.database.clock.now()).total_seconds()
        self._set_cookie(request, answer, COOKIE, session.secret, max(1, int(life)))
        return answer

    def _set_cookie(self, request: Request, answer: Response, name: str, value: str, life_s: int) -> None:
        answer.set_cookie(
            name,
            value,
            max_age=life_s,
            path=root_of(request) or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def _status(error: TeamfitError | NotAllowed) -> int:
    if isinstance(error, NotAllowed):
        return error.status
    return 401 if isinstance(error, InvalidToken) else 403


def _own_address(onward: str) -> str:
    """Return where to go after the sign-in: a path of the console, and nothing that a browser reads as a host."""
    printable = onward.isprintable() and "\\" not in onward
    return onward if printable and onward.startswith("/") and not onward.startswith("//") else "/"
