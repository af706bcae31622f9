"""The API is composed of routers; this opens and closes the connections that they need."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI

from consumers.projection.changes import Changes
from infra import tracing
from infra.api import failures
from infra.api.behind_proxy import BehindProxy
from infra.api.body_limit import BodyLimit
from infra.api.cross_origin import CrossOrigin
from infra.api.document import add_docs_page, operation_id
from infra.api.head import Head
from infra.api.leaving import BEFORE_STOP
from infra.api.limits import Limited
from infra.api.repeated import JoinedLists, each_once
from infra.api.routes import (
    actions,
    cancel,
    erase,
    events,
    fleet,
    frozen_plans,
    health,
    intake,
    job_lists,
    jobs,
    llm,
    one_job,
    operators,
    organizations,
    overview,
    plan_shares,
    schedule,
    streams,
    webhooks,
)
from infra.api.tickets import HiddenTickets
from infra.auth import signing_key
from infra.identity import Tokens
from infra.operations.overview import Overviews
from infra.postgres import Database
from infra.settings import Settings
from infra.settings import settings as process_settings
from producers.broker import Broker
from producers.cancellation import Cancellation
from producers.intake import Intake
from producers.turns import Turns
from streams.jobs.events import MAX_REQUIREMENTS
from streams.jobs.gauges import Gauges
from streams.jobs.watch import Watch

# JSON may write each character of the requirements as two escapes of six bytes; and room for the rest.
LONGEST_BODY = 12 * MAX_REQUIREMENTS + 16 * 1024
CONSOLE_PREFIX = "/console"
# What operators do is heavy, and takes no connection from customers: one replay at a time holds two, and lists one.
OPERATORS_CONNECTIONS = 3

_DESCRIPTION = """Ask for custom team-building activities and poll what became of the job.

Send `Authorization: Bearer <token>`. Errors are problem documents (RFC 9457) with a stable `code`."""

_TAGS = [
    {"name": "activities", "description": "Ask for three activities."},
    {"name": "jobs", "description": "Follow, list and cancel an organization's jobs. Needs the scope `jobs`."},
    {"name": "operators", "description": "See and repair what failed, of all organizations. Needs `operator`."},
    {"name": "health", "description": "For probes and Prometheus; no token."},
]
_DESCRIBED: Final[Mapping[str, Any]] = {
    "title": "TEAMFIT activities",
    "description": _DESCRIPTION,
    "openapi_tags": _TAGS,
    "generate_unique_id_function": operation_id,
}
_SERVED: Final[Mapping[str, Any]] = {
    "dependencies": [Depends(each_once)],
    # A redirect to the address without its slash would go to the host and scheme that a proxy hides.
    "redirect_slashes": False,
    "docs_url": None,
    "redoc_url": None,
}


def create_api(settings: Settings | None = None) -> FastAPI:
    """Return the API. Postgres and the broker may be away: `/readyz` says so, and requests get 503 until they are back.

    Args:
        settings: the process's own when left out, so that this can be uvicorn's `factory`.

    Raises:
        NoSigningKey: TEAMFIT_SIGNING_KEY is missing or too short; the message says how to make one.
    """
    settings = settings or process_settings()
    signing_key(settings)
    tokens = Tokens.of(settings)
    database = Database(settings.database_url, size=settings.database_pool_size, keeps_plans=True)
    operators_database = Database(settings.database_url, size=OPERATORS_CONNECTIONS)
    broker, watch, changes = Broker(settings, name="api"), Watch(database, "api"), Changes(database)
    gauges, overviews = Gauges(settings, broker.backlogs), Overviews(settings, operators_database, broker)
    closes = [watch.close, gauges.close, overviews.close, broker.close, database.close, operators_database.close]
    ends = [changes.end]

    api = FastAPI(
        version=version("teamfit-pipeline"),
        lifespan=_serving(watch, ends, closes),
        **_DESCRIBED,
        **_SERVED,
    )
    _add_middleware(api, settings)
    add_docs_page(api)
    requests, limited = _intake(settings, database, broker), Limited(database)
    of_jobs = jobs.create_router(database, tokens, changes)
    api.router.routes.insert(0, jobs.plain_route(of_jobs, tokens))
    for router in (
        intake.create_router(requests, limited, tokens, watch),
        cancel.create_router(Cancellation(database, broker, database.clock), limited, tokens),
        of_jobs,
        events.create_router(database, tokens, changes),
        job_lists.create_router(database, tokens),
        *_operators_routers(settings, operators_database, broker, overviews, tokens),
        health.create_router({"database": requests.probe, "broker": broker.probe}, gauges.refresh, watch),
    ):
        api.include_router(router)
    if settings.console:
        # Most serve none, and would hold it in memory.
        from infra.console import Console  # noqa: PLC0415

        console = Console(settings, operators_database, broker)
        ends.append(console.end_streams)
        closes.insert(0, console.close)
        api.mount(CONSOLE_PREFIX, console)
    return api


def _operators_routers(
    settings: Settings, database: Database, broker: Broker, overviews: Overviews, tokens: Tokens
) -> Sequence[APIRouter]:
    return (
        job_lists.create_operators_router(database, tokens),
        one_job.create_router(database, broker, tokens),
        operators.create_router(database, broker, tokens),
        frozen_plans.create_cancel_router(database, broker, tokens),
        frozen_plans.create_discard_router(database, tokens),
        actions.create_router(database, tokens),
        fleet.create_router(database, tokens),
        webhooks.create_router(database, tokens, settings),
        streams.create_router(broker, tokens),
        organizations.create_router(database, tokens),
        plan_shares.create_router(database, tokens),
        erase.create_router(database, broker, tokens),
        llm.create_router(database, tokens),
        overview.create_router(overviews, tokens),
        schedule.create_router(database, tokens),
    )


def _add_middleware(api: FastAPI, settings: Settings) -> None:
    """Add what stands between the server and the routes, the innermost first."""
    tracing.trace_requests(api)
    api.add_middleware(Head)
    api.add_middleware(BodyLimit, limit=LONGEST_BODY)
    failures.install(api)
    if settings.cors_origins is not None:
        api.add_middleware(CrossOrigin, origins=settings.cors_origins)
    if settings.console:
        from infra.console import StrictHeaders  # noqa: PLC0415

        api.add_middleware(StrictHeaders, below=CONSOLE_PREFIX)
    api.add_middleware(BehindProxy, root_path=settings.root_path, trusted=settings.trusted_proxies)
    api.add_middleware(JoinedLists)
    api.add_middleware(HiddenTickets)


def _serving(
    watch: Watch, ends: Sequence[Callable[[], None]], closes: Sequence[Callable[[], Awaitable[None]]]
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that begins to watch.

    The server calls `ends` when it begins to stop; `closes` are called in their order when no request is left.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        watch.start()
        try:
            yield {BEFORE_STOP: ends}
        finally:
            for close in closes:
                await close()

    return lifespan


def _intake(settings: Settings, database: Database, broker: Broker) -> Intake:
    # A request holds a connection until the broker has answered (decision 7). With a slow broker they would soon hold
    # all of the process, and reading a job would wait for the broker too; so a quarter of the pool is not theirs.
    of_requests = settings.database_pool_size - max(settings.database_pool_size // 4, 1)
    return Intake(database, broker, database.clock, settings.trust_threshold, Turns(of_requests))
