"""A worker serves its liveness, readiness and metrics to its orchestrator over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any

import faust
from faust.web import Request, Response, View

from infra.telemetry import exposed


def serve_health(
    app: faust.App,
    problems: Callable[[], list[str]],
    pauses: Callable[[], list[str]],
    refresh: Callable[[], Awaitable[None]],
) -> None:
    """Add the pages /healthz, /readyz and /metrics to the web server of a Faust app.

    Args:
        app: the worker's app.
        problems: says why work stands still; asked by each /readyz, which answers 503 while it says anything.
        pauses: says what operators have paused. That is no fault, so the answer is 200.
        refresh: brings the gauges up to date; awaited by each /metrics, and neither fails nor hangs.
    """

    async def healthz(view: View, _request: Request) -> Response:
        return view.json({"status": "ok"})

    async def readyz(view: View, _request: Request) -> Response:
        found, paused = problems(), pauses()
        status = "held" if found else "paused" if paused else "ready"
        return view.json({"status": status, "problems": found, "paused": paused}, status=503 if found else 200)

    async def metrics(view: View, request: Request) -> Response:
        await refresh()
        content, kind = exposed(request.headers.get("Accept", ""))
        return view.bytes(content, content_type=kind.partition(";")[0])

    pages: dict[str, Any] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    for path, page in pages.items():
        app.page(path)(page)
