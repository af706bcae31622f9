"""The operators' routes to the periodic tasks: how each stands, and having one run now."""

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations.job_search import Term
from infra.operations.schedule import periodic_tasks, run_task
from infra.postgres import Database


class PeriodicTask(BaseModel):
    """A periodic task of the schedule worker that leads."""

    name: str
    what: str
    when: str
    state: Literal["wanted", "running", "failed", "done", "never"]
    started_at: datetime | None
    ended_at: datetime | None
    next_at: datetime | None = Field(description="Absent where that is seconds away.")
    error: str | None = Field(description="The kind of error by which it failed last.")
    wanted_at: datetime | None
    wanted_by: str | None


class PeriodicTasks(BaseModel):
    """All periodic tasks."""

    tasks: list[PeriodicTask]


class TaskWish(BaseModel):
    """A task that is to run now."""

    model_config = ConfigDict(extra="forbid")

    task: Term
    reason: Term | None = Field(default=None, description="Why; others read it.")


class TaskAnswer(BaseModel):
    """Running a task has these effects."""

    effects: dict[str, Any]


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops/schedule", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR, logs=database)
    reads = responses(*TOKEN, "database_unavailable")
    writes = responses(*TOKEN, *BODY, "task_not_found", "task_running", "database_unavailable")

    @router.get("/tasks", responses=reads, dependencies=[Depends(operator)])
    async def list_tasks() -> PeriodicTasks:
        """List the periodic tasks: when each ran last and runs next, and how it ended."""
        fields = PeriodicTask.model_fields
        found = await periodic_tasks(database)
        return PeriodicTasks(tasks=[PeriodicTask(**{name: getattr(one, name) for name in fields}) for one in found])

    @router.post("/run", responses=writes, dependencies=[Depends(operator)])
    async def run_one(body: TaskWish) -> TaskAnswer:
        """Have a periodic task run now; the schedule worker that leads begins within two seconds.

        One that is running is left alone. A repeat before it has begun changes nothing.
        """
        return TaskAnswer(effects=dict(await run_task(database, body.task, reason=body.reason)))

    return router
