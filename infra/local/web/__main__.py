"""`python -m infra.local.web --port N --api URL` serves the front end until it is stopped.

Two routes stand for a customer's own back end, and static files are the page. There is no sign-in: whoever reaches this
machine's loopback interface speaks for the demo organizations alone.
"""

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ValidationError

from infra.auth import issue_token, signing_key
from infra.local.organizations import ORGANIZATIONS
from infra.local.processes import HOST
from infra.ports import PortTaken, require_free
from infra.settings import settings

TOKEN_LIFE: Final = timedelta(minutes=15)
_STATIC: Final = Path(__file__).with_name("static")
# Another name that leads to this machine would be another site's page, which could then read tokens.
_NAMES: Final = frozenset({"127.0.0.1", "localhost"})


class _Wanted(BaseModel):
    """The body of a request for a token."""

    organization_id: str


def create_app(api_url: str, key: str) -> web.Application:
    """Return the front end of an API whose tokens are signed with this key."""
    app = web.Application(middlewares=[_strict(api_url)])

    async def page(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(_STATIC / "index.html")

    async def session(_request: web.Request) -> web.Response:
        teams = [
            {"id": one.team.id, "name": f"{one.name}, {one.team.name}", "organization_id": one.id}
            for one in ORGANIZATIONS
        ]
        return web.json_response({"api": api_url, "teams": teams})

    async def token(request: web.Request) -> web.Response:
        try:
            wanted = _Wanted.model_validate_json(await request.read())
        except ValidationError:
            raise web.HTTPBadRequest(text='send {"organization_id": "…"} as JSON') from None
        if wanted.organization_id not in {one.id for one in ORGANIZATIONS}:
            raise web.HTTPForbidden(text="this session speaks for the demo organizations alone")
        made = issue_token(key, organization_id=wanted.organization_id, subject="front-end", lifetime=TOKEN_LIFE)
        return web.json_response({"token": made})

    app.router.add_get("/", page)
    app.router.add_get("/my/session", session)
    app.router.add_post("/my/teamfit-token", token)
    app.router.add_static("/static", _STATIC)
    return app


def _strict(api_url: str) -> Middleware:
    """Return a middleware that forbids what the page does not need: it speaks to its server and to the API alone."""
    headers = {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {api_url}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    @web.middleware
    async def strict(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.url.host not in _NAMES:
            raise web.HTTPMisdirectedRequest(text="open this page as 127.0.0.1 or localhost")
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise
        answer.headers.update(headers)
        return answer

    return strict


def main() -> int:
    """Serve until a signal ends it. A port that is taken is a plain message and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.web", description="A small front end for the API.")
    parser.add_argument("--port", type=int, required=True, help="the port on the loopback interface")
    parser.add_argument("--api", required=True, help="the API's address; TEAMFIT_CORS_ORIGINS there names this origin")
    arguments = parser.parse_args()
    try:
        require_free(arguments.port, "--port")
    except PortTaken as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's own message
        return 2
    app = create_app(arguments.api, signing_key(settings()))
    web.run_app(app, host=HOST, port=arguments.port, access_log=None, print=None, shutdown_timeout=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
