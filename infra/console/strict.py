"""Each answer below the console's address has its headers, errors and refused bodies too."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
