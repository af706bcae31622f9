"""What orchestrators and Prometheus ask: whether the process lives, whether it can serve, and its metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from infra.errors import DependencyDown

Ping = Callable[[], Awaitable[None]]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be served now, and if not, why."""

    status: Literal["ready", "unready"]
    reasons: dict[str, str] = Field(description="What is wrong with each dependency that is away.")


def create_router(pings: Mapping[str, Ping], refresh: Callable[[], Awaitable[None]]) -> APIRouter:
    """Return the routes.

    Args:
        pings: by dependency, what raises DependencyDown while it is away.
        refresh: brings the gauges up to date; awaited by each /metrics, and neither fails nor hangs.
    """
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Alive:
        """Say that the process lives, whatever it depends on."""
        return Alive()

    @router.get("/readyz", responses={503: {"model": Readiness, "description": "A dependency is away."}})
    async def readyz(response: Response) -> Readiness:
        """Say whether Postgres and the broker answer."""
        answers = await asyncio.gather(*(_reason(ping) for ping in pings.values()))
        reasons = {name: reason for name, reason in zip(pings, answers, strict=True) if reason is not None}
        if reasons:
            response.status_code = 503
        return Readiness(status="unready" if reasons else "ready", reasons=reasons)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return this process's metrics in Prometheus's text format."""
        await refresh()
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


async def _reason(ping: Ping) -> str | None:
    """Return what is wrong, without the addresses and names that an error's text may hold: the route is open to all."""
    try:
        await ping()
    except DependencyDown as error:
        return type(error.__cause__ or error).__name__
    return None
