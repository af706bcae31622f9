"""Pages of other origins may call the API when a setting names their origins (CORS).

Tokens travel in a header that the page sets, never in a cookie, so no credentials are allowed: a page that is not
trusted gains nothing that a program without a token does not have.
"""

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS: Final = ("GET", "POST", "HEAD")
_SENT: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "traceparent",
    "tracestate",
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


class CrossOrigin:
    """Pages of these origins may read what the API's routes answer, not the console.

    Args:
        app: what answers.
        origins: `https://app.example.com`, several separated by commas; `*`: all.
    """

    def __init__(self, app: ASGIApp, origins: str) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=[origin.strip() for origin in origins.split(",")],
            allow_methods=_METHODS,
            allow_headers=_SENT,
            expose_headers=_READ,
            max_age=_PREFLIGHT_KEPT_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        await (self._open if path.startswith("/api/") else self._app)(scope, receive, send)
