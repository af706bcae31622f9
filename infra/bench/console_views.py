"""Every list and page that operators and customers ask for, with every filter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias
from urllib.parse import urlencode
from uuid import UUID

from infra.bench.console_rows import LONG_JOB
from infra.operations.cancel_plans import cancel_plans
from infra.operations.discard_plans import DiscardChoice, discard_plans
from infra.operations.job_search import JobFilter, find_jobs
from infra.operations.webhooks import list_endpoints
from infra.postgres import Database
from producers.replay.failed import FailedEvents, Filter
from producers.replay.plans import Plans

Caller: TypeAlias = Literal["console", "operator", "customer"]

_NOW: Final = datetime.now(UTC)
_DAY: Final = (_NOW - timedelta(days=1)).isoformat()
_MONTH: Final = (_NOW - timedelta(days=30)).isoformat()
_LATER: Final = (_NOW + timedelta(days=1)).isoformat()
BIG, SMALL = "org-0", "org-900"
"""An organization with a tenth of all jobs, and one with few."""

JOB_FILTERS: Final[dict[str, Sequence[str]]] = {
    "status": ("pending", "processing", "completed", "failed", "cancelled"),
    "organization_id": (BIG, SMALL, "unknown"),
    "team_id": (f"{BIG}-1", f"{SMALL}-2", "unknown"),
    "since": (_DAY, _MONTH, _LATER),
    "until": (_DAY, _MONTH),
    "error_code": ("llm_refusal", "team_not_found"),
    "run": ("0", "1", "2"),
    "trace_id": ("0" * 32,),
    "words": (
        "session",
        "kayaks",
        "theme17",
        "Zanzibar",
        "unknown",
        '"and kayaks"',
        "kayaks or zanzibar",
        "outdoors -kayaks",
        "-session",
    ),
    "order": ("oldest",),
}
FAILED_FILTERS: Final[dict[str, Sequence[str]]] = {
    "state": ("open", "replayed", "discarded"),
    "stage": ("generation", "projection", "webhooks"),
    "error_type": ("Permanent", "unknown"),
    "organization_id": ("org-1", "unknown"),
    "reason": ("given_up", "max_deliveries"),
    "trace_id": ("0" * 32,),
    "since": (_DAY, _MONTH, _LATER),
    "until": (_DAY, _MONTH),
}
_ACTION_FILTERS: Final[dict[str, Sequence[str]]] = {
    "actor": ("ann", "unknown"),
    "action": ("job.cancel", "failed.", "webhook.", "unknown"),
    "target": ("organization org-7", "unknown"),
    "face": ("cli", "program"),
    "outcome": ("done", "refused"),
    "since": (_DAY, _LATER),
    "until": (_DAY,),
}
_JOB_PAIRS: Final = (
    {"organization_id": BIG, "status": "failed"},
    {"organization_id": BIG, "status": "pending"},
    {"organization_id": SMALL, "status": "cancelled"},
    {"organization_id": BIG, "status": "completed", "order": "oldest"},
    {"organization_id": BIG, "words": "kayaks"},
    {"organization_id": BIG, "words": "theme17"},
    {"organization_id": BIG, "run": "2"},
    {"organization_id": BIG, "error_code": "llm_refusal", "since": _MONTH},
    {"team_id": f"{BIG}-1", "status": "failed"},
    {"status": "failed", "since": _DAY},
    {"status": "completed", "until": _MONTH},
    {"status": "failed", "error_code": "llm_timeout", "words": "kayaks"},
    {"status": "pending", "words": "session"},
    {"words": "kayaks", "until": _MONTH, "order": "oldest"},
    {"run": "2", "status": "failed"},
)
_FAILED_PAIRS: Final = (
    {"state": "replayed", "stage": "quota"},
    {"organization_id": "org-1", "error_type": "Permanent", "since": _MONTH},
    {"stage": "generation", "reason": "max_deliveries"},
)


@dataclass(frozen=True, slots=True)
class View:
    """An address, and as whom it is asked for."""

    path: str
    caller: Caller = "console"

    def __str__(self) -> str:
        """Return what it is, in short."""
        return self.path if self.caller == "console" else f"{self.path} ({self.caller})"


async def all_views(database: Database) -> list[View]:
    """Return every view. One plan of each kind is made for it."""
    job_id = await _job(database, 5)
    event = (await FailedEvents(database, database.clock).page(Filter(), limit=1)).failed_events[0]
    replay = await Plans(database, database.clock).make(Filter(organization_id="org-1"), by="bench")
    cancel = await cancel_plans(database).make(JobFilter(status="pending"), by="bench")
    discard = await discard_plans(database).make(DiscardChoice(organization_id="org-1"), by="bench")
    endpoint = (await list_endpoints(database, BIG)).endpoints[0]
    deep = (await find_jobs(database, JobFilter(until=_NOW - timedelta(days=60)), limit=1)).next
    return [
        *(View(path) for path in _pages(job_id, await _job(database, LONG_JOB))),
        *(View(path) for path in (f"/failed/{event.id}", f"/replay/{replay.id}", f"/cancels/{cancel.id}")),
        View(f"/discards/{discard.id}"),
        *_lists("/webhooks", {"organization_id": (BIG, "unknown")}, ()),
        *_lists(f"/webhooks/{endpoint.id}", {"state": ("waiting", "delivered", "given_up")}, ()),
        *_lists("/jobs", JOB_FILTERS, _JOB_PAIRS),
        View(f"/jobs?cursor={deep}"),
        View("/jobs?limit=500"),
        *_lists("/failed", {**FAILED_FILTERS, "job_id": (str(event.job_id),)}, _FAILED_PAIRS),
        *_lists("/failed/groups", {"stage": ("generation",), "organization_id": ("org-1",)}, ()),
        *_lists("/actions", _ACTION_FILTERS, ()),
        *_lists("/schedule", {"topic": ("job-requests", "job-accepted", "dead-letters")}, ()),
        *_of_api(event.id, replay.id, cancel.id),
    ]


async def _job(database: Database, number: int) -> UUID:
    async with database.transaction() as connection:
        return UUID(str(await connection.fetchval("SELECT md5('bench' || $1::int)::uuid", number)))


def _pages(job_id: UUID, long_job: UUID) -> Iterator[str]:
    yield from ("/llm", "/organizations/plans")
    yield from ("/", "/workers", "/streams", "/streams/entries?topic=job-requests", "/operating")
    yield from ("/replay", "/cancels", "/discards", "/organizations", "/organizations?name=bench+77")
    yield from (f"/organization?id={one}" for one in (BIG, SMALL))
    for job in (job_id, long_job):
        yield from (f"/jobs/{job}", f"/jobs/{job}/events")


def _lists(path: str, filters: dict[str, Sequence[str]], pairs: Sequence[dict[str, str]]) -> Iterator[View]:
    yield View(path)
    for name, values in filters.items():
        yield from (View(f"{path}?{urlencode({name: value})}") for value in values)
    yield from (View(f"{path}?{urlencode(pair)}") for pair in pairs)


def _of_api(event_id: UUID, plan_id: UUID, cancel_id: UUID) -> Iterator[View]:
    yield from (View(f"/api/jobs{query}", "customer") for query in _CUSTOMERS)
    yield View("/api/usage", "customer")
    yield from (View(f"/api/ops/{path}", "operator") for path in _OPERATORS)
    yield View(f"/api/ops/failed/{event_id}", "operator")
    yield View(f"/api/ops/replay/plans/{plan_id}", "operator")
    yield View(f"/api/ops/cancel/plans/{cancel_id}", "operator")


_CUSTOMERS: Final = (
    "",
    *(f"?status={one}" for one in JOB_FILTERS["status"]),
    f"?team_id={BIG}-1",
    f"?{urlencode({'since': _DAY})}",
    f"?team_id={BIG}-1&status=failed",
)
_OPERATORS: Final = (
    "jobs",
    "jobs?status=failed",
    "jobs?words=kayaks",
    f"jobs?organization_id={BIG}",
    "overview",
    "workers",
    f"usage?organization_id={BIG}",
    "schedule",
    "schedule/tasks",
    "actions",
    "failed",
    "failed/groups",
    "cancel/plans",
    "discard/plans",
    "organizations",
    f"organizations/books?organization_id={BIG}",
    "organizations/plans",
    "llm",
    "llm/prices",
    "webhooks",
    f"webhooks?organization_id={BIG}",
)
