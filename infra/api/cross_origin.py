"""Pages of other origins may call the API when a setting names their origins (CORS).

Tokens travel in a header that the page sets, never in a cookie, so no credentials are allowed: a page that is not
trusted gains nothing that a program without a token does not have.
"""

from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.api.problems import ProblemResponse

_METHODS: Final = ("GET", "POST", "HEAD", "DELETE")
_SENT: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "traceparent",
    "tracestate",
    # Means nothing here; libraries send it unasked, and a page would be kept out for it.
    "baggage",
    "Cache-Control",
    "X-Requested-With",
)
# What a page may read of an answer beside the few headers that it may always read.
_READ: Final = (
    "ETag",
    "Last-Event-ID",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
)
_PREFLIGHT_KEPT_S: Final = 600
_ASKED: Final = b"access-control-request-headers"


class _Preflights(CORSMiddleware):
    """Starlette's own, whose refusals are problem documents too."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks first."""
        asked = [(name, value) for name, value in request_headers.raw if name != _ASKED]
        wanted = [one.strip() for one in request_headers.get(_ASKED.decode(), "").split(",")]
        if any(wanted):  # some ask for none, by a header that is empty
            asked.append((_ASKED, ", ".join(filter(None, wanted)).encode("latin-1")))
        answer = super().preflight_response(Headers(raw=asked))
        if answer.status_code == HTTPStatus.OK:
            return answer
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return ProblemResponse(400, "bad_request", self._objection(request_headers), headers=headers)

    def _objection(self, asked: Headers) -> str:
        if not self.is_allowed_origin(asked["origin"]):
            return "Origin: pages of it may not call this API; name it in TEAMFIT_CORS_ORIGINS"
        if asked["access-control-request-method"] not in self.allow_methods:
            return f"Access-Control-Request-Method: pages may send {', '.join(self.allow_methods)} alone"
        if "access-control-request-private-network" in asked and not self.allow_private_network:
            return (
                "Access-Control-Request-Private-Network: name the page's origin in TEAMFIT_CORS_ORIGINS in place of `*`"
            )
        return "Access-Control-Request-Headers: pages may send those of Access-Control-Allow-Headers alone"


class CrossOrigin:
    """Pages of these origins may read what the API's routes answer, not the console.

    Args:
        app: what answers.
        origins: `https://app.example.com`, several separated by commas; `*`: all.
    """

    def __init__(self, app: ASGIApp, origins: str) -> None:
        self._app = app
        self._open = _Preflights(
            app,
            allow_origins=[origin.strip() for origin in origins.split(",")],
            allow_methods=_METHODS,
            allow_headers=_SENT,
            expose_headers=_READ,
            # An operator who names origins knows that their pages come from outside.
            allow_private_network=origins != "*",
            max_age=_PREFLIGHT_KEPT_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        await (self._open if path.startswith("/api/") else self._app)(scope, receive, send)
