"""A proxy's headers tell the API a request's prefix, its client and its scheme."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

# A proxy may write whole addresses, which RFC 9112 (section 3.2.2) has every server take.
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
# Segments alone: two slashes at the beginning would make another host's address of our own.
_PREFIX = re.compile(r"(/[\w.~%-]+)*")


class BehindProxy:
    """Applies the API's prefix and the forwarded headers of trusted proxies.

    Addresses in answers begin with the prefix, whether the proxy removes it from the request's path or not.
    `X-Forwarded-Prefix` of a trusted proxy takes the place of `root_path`.

    Args:
        app: what answers.
        root_path: the prefix, such as `/teamfit`; empty: none.
        trusted: addresses and networks of proxies, separated by commas; `*`: everybody's.
    """

    def __init__(self, app: ASGIApp, root_path: str, trusted: str) -> None:
        self._app = ProxyHeadersMiddleware(app, trusted)  # type: ignore[arg-type] # the same, in uvicorn's own types
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            scope = _in_origin_form(scope)
            prefix = self._prefix(scope) or scope.get("root_path", "")
            path = scope["path"]
            if prefix and path != prefix and not path.startswith(f"{prefix}/"):
                path = prefix + path
            scope = {**scope, "root_path": prefix, "path": path}
        await self._app(scope, receive, send)  # type: ignore[arg-type] # as above

    def _prefix(self, scope: Scope) -> str:
        client = scope.get("client")
        if client and client[0] in self._app.trusted_hosts:
            forwarded = _joined(Headers(scope=scope).getlist("x-forwarded-prefix"))
            if forwarded:
                return forwarded
        return self._root_path


def _in_origin_form(scope: Scope) -> Scope:
    found = _ABSOLUTE.match(scope["raw_path"])
    if found is None:
        return scope
    raw_path = scope["raw_path"][found.end() :] or b"/"
    return {**scope, "path": unquote(raw_path.decode("latin1")), "raw_path": raw_path}


def _joined(values: Sequence[str]) -> str:
    """Return the prefix that several proxies make together, the outermost first; empty if one is none."""
    parts = [part.strip().rstrip("/") for value in values for part in value.split(",")]
    return "".join(parts) if all(_PREFIX.fullmatch(part) for part in parts) else ""
