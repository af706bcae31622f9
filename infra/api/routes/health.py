"""Orchestrators and Prometheus ask for liveness, readiness and metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from infra.errors import DependencyDown, RefusesWrites
from infra.looks import SharedLook
from infra.telemetry import exposed
from streams.jobs.watch import Watch

log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[None]]

# However many ask, each dependency is asked once in this time.
_FRESH_S = 1.0
# A dependency that needs longer to answer is as good as away: orchestrators give a probe a second or a few.
_LONGEST_LOOK_S = 2.0
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """An answer that says if requests can be taken now, and if not, why."""

    status: Literal["ready", "unready"]
    reasons: dict[str, str] = Field(description="What is wrong with each dependency that is away or takes no writes.")
    paused: dict[str, str] = Field(description="What operators have stopped, and why: no fault. Jobs can be read.")


def create_router(probes: Mapping[str, Probe], refresh: Callable[[], Awaitable[None]], watch: Watch) -> APIRouter:
    """Return the routes.

    Args:
        probes: by dependency, what raises DependencyDown while it is of no use.
        watch: knows whether operators have stopped the intake, which is no fault.
        refresh: brings the gauges up to date; awaited by each /metrics, and neither fails nor hangs.
    """
    router = APIRouter(tags=["health"])
    watched = {name: _Watched(probe) for name, probe in probes.items()}

    @router.get("/healthz")
    async def healthz() -> Alive:
        """Say that the process lives, whatever it depends on."""
        return Alive()

    @router.get("/readyz", responses={503: {"model": Readiness, "description": "A dependency is away."}})
    async def readyz(response: Response) -> Readiness:
        """Say whether a request would be taken: Postgres and the broker answer and take writes. At most 1 s old."""
        answers = await asyncio.gather(*(one.reason() for one in watched.values()))
        reasons = {name: reason for name, reason in zip(watched, answers, strict=True) if reason is not None}
        if reasons:
            response.status_code = 503
        stopped = watch.controls.find("intake")
        paused = {} if stopped is None else {"intake": stopped.reason}
        return Readiness(status="unready" if reasons else "ready", reasons=reasons, paused=paused)

    @router.get(
        "/metrics",
        response_class=Response,
        responses=_TEXT,
    )
    async def metrics(request: Request) -> Response:
        """Return this process's metrics in Prometheus's text format."""
        await refresh()
        content, kind = exposed(request.headers.get("Accept", ""))
        return Response(content, headers={"Content-Type": kind})

    return router


class _Watched:
    """The latest look at a dependency, shared by everybody who asks meanwhile."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._shared = SharedLook(self._reason, fresh_s=_FRESH_S, longest_s=_LONGEST_LOOK_S)
        self._logged: str | None = None

    async def reason(self) -> str | None:
        """Return what is wrong with it, or None."""
        try:
            return await self._shared.latest()
        except TimeoutError as error:
            return str(error)

    async def _reason(self) -> str | None:
        """Return what is wrong. The route is open to all, so addresses and names that the error holds go to the log."""
        try:
            await self._probe()
        except DependencyDown as error:
            if str(error) != self._logged:
                self._logged = str(error)
                log.warning("api.dependency_lost", dependency=error.dependency, why=self._logged)
            return str(error) if isinstance(error, RefusesWrites) else type(error.__cause__ or error).__name__
        self._logged = None
        return None
