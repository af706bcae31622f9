"""Every route of the console, called directly by everybody who may or may not."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import aiohttp
import pytest
from redis.asyncio import Redis
from starlette.routing import Mount, Route

from infra.api.console import create_app
from infra.auth import issue_token
from infra.console import Console, make_link
from infra.console.pages.jobs import MOST_FACTS
from infra.console.sessions import Role, Session, Sessions
from infra.operations.cancel_plans import cancel_plans
from infra.operations.discard_plans import DiscardChoice, discard_plans
from infra.operations.job_search import JobFilter
from infra.operations.webhooks import add_endpoint
from infra.postgres import Database
from infra.settings import Settings
from producers.broker import Broker
from tests.api_server import SIGNING_KEY, api_settings, serving_app
from tests.conftest import Pool
from tests.integration.quota_scene import request
from tests.integration.replay_scene import Scene, open_scene
from tests.waiting import wait_for

# Everybody who is signed in sees them; the setting about texts says how much of them.
PAGES = (
    "/",
    "/jobs",
    "/jobs/{job_id:uuid}",
    "/jobs/{job_id:uuid}/events",
    "/failed",
    "/failed/groups",
    "/failed/{event_id:uuid}",
    "/cancels",
    "/cancels/{cancel_id:uuid}",
    "/discards",
    "/discards/{discard_id:uuid}",
    "/replay",
    "/replay/{plan_id:uuid}",
    "/organizations",
    "/organizations/plans",
    "/organization",
    "/llm",
    "/streams",
    "/streams/entries",
    "/schedule",
    "/workers",
    "/webhooks",
    "/webhooks/{endpoint_id:uuid}",
    "/actions",
    "/operating",
)
LIVE = {f"/live{path}" for path in PAGES if not path.endswith("events") and path != "/failed/{event_id:uuid}"} - {
    "/live/failed/groups",
    "/live/organizations",
    "/live/streams/entries",
    "/live/operating",
}
# With the status for an operator; nobody else may.
ACTIONS = {
    "/jobs/cancel": 200,
    "/jobs/cancel/confirmed": 200,
    "/cancels": 303,
    "/cancels/{cancel_id:uuid}/apply": 303,
    "/cancels/{cancel_id:uuid}/pause": 409,
    "/cancels/{cancel_id:uuid}/abort": 303,
    "/discards": 303,
    "/discards/{discard_id:uuid}/apply": 303,
    "/discards/{discard_id:uuid}/pause": 409,
    "/discards/{discard_id:uuid}/abort": 303,
    "/failed/plan": 303,
    "/failed/{event_id:uuid}/discard": 303,
    "/replay/{plan_id:uuid}/apply": 303,
    "/replay/{plan_id:uuid}/pause": 409,
    "/replay/{plan_id:uuid}/abort": 303,
    "/organization/change": 303,
    "/organization/recount": 303,
    "/organization/team": 303,
    "/organization/erase": 200,
    "/organization/erase/confirmed": 200,
    "/organizations/add": 303,
    "/organizations/plans/set": 200,
    "/organizations/plans/set/confirmed": 303,
    "/organizations/plans/forget": 200,
    "/organizations/plans/forget/confirmed": 303,
    "/llm/gate/open": 303,
    "/llm/dialect/forget": 303,
    "/llm/price": 200,
    "/llm/price/confirmed": 303,
    "/schedule/run": 303,
    "/webhooks/add": 200,
    "/webhooks/{endpoint_id:uuid}/rotate": 200,
    "/webhooks/{endpoint_id:uuid}/disable": 303,
    "/webhooks/{endpoint_id:uuid}/enable": 303,
    "/webhooks/{endpoint_id:uuid}/test": 303,
    "/webhooks/{endpoint_id:uuid}/remove": 303,
    "/workers/control": 200,
    "/workers/control/confirmed": 303,
    "/workers/control/end": 404,
}
# The first that fits is sent.
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "/organizations/add": {"id": "hazel", "monthly_quota": "7"},
    "/organization/team": {"id": "acme", "team_id": "acme-core", "size": "9"},
    "/organizations/plans/set": {"plan": "team", "weight": "3", "budget": "50.00"},
    "/organizations/plans/forget": {"plan": "team"},
    "/llm/price": {"model": "m", "input_price": "0.15", "output_price": "0.60", "currency": "USD"},
}
OPEN = {"/sign-in", "/sign-in/{link}", "/sign-out"}


@dataclass
class World:
    """A console, what it shows, and how to call it."""

    http: aiohttp.ClientSession
    sessions: Sessions
    ids: Mapping[str, str]

    async def session(self, role: Role) -> Session:
        return await self.sessions.begin("ann", role)

    def path(self, route: str) -> str:
        for name, value in self.ids.items():
            route = route.replace(f"{{{name}:uuid}}", value)
        return route + {"/organization": "?id=acme", "/streams/entries": "?topic=job-requests"}.get(
            route.removeprefix("/live"), ""
        )

    async def get(self, path: str, session: Session | None = None, **headers: str) -> aiohttp.ClientResponse:
        return await self.http.get(path, headers={**_cookie(session), **headers}, allow_redirects=False)

    async def post(
        self, path: str, session: Session | None = None, *, form_token: str | None = None, **fields: str
    ) -> aiohttp.ClientResponse:
        token = form_token if form_token is not None else session.form_token if session else ""
        data = {"form_token": token, **fields}
        return await self.http.post(path, data=data, headers=_cookie(session), allow_redirects=False)

    def fields(self, route: str) -> dict[str, str]:
        """Return what an action's form holds."""
        if route.startswith("/jobs/cancel"):
            return {"chosen": self.ids["job_id"], "because": "a test"}
        if route.endswith("/apply"):
            return {"rate": "100"} | ({} if route.startswith("/replay") else {"because": "a test"})
        if route == "/webhooks/add":
            return {"organization_id": "acme", "url": "https://acme.example/hooks"}
        if route.endswith(("/discard", "/disable")):
            return {"because": "a test"}
        if route == "/organization/change":
            return {"id": "acme", "monthly_quota": "60"}
        if route.startswith("/workers/control"):
            return {"kind": "pause", "subject": "generation", "reason": "a test", "minutes": "5"} | (
                {"minutes": ""} if route.endswith("/end") else {}
            )
        if route == "/schedule/run":
            return {"task": "counts", "reason": "a test"}
        for start, fields in _FIELDS.items():
            if route.startswith(start):
                return dict(fields)
        return {"id": "acme"} if route.startswith("/organization") else {}


def _cookie(session: Session | None) -> dict[str, str]:
    return {"Cookie": f"teamfit_console={session.secret}"} if session else {}


@pytest.fixture
async def settings(database_url: str, redis_url: str) -> Settings:
    """Settings of a console on servers of the test's own."""
    return api_settings(database_url=database_url, broker_url=redis_url)


@pytest.fixture
async def world(database: Pool, database_url: str, settings: Settings) -> AsyncIterator[World]:
    """A console with a job that failed and a plan of its replay."""
    async with open_scene(database, database_url) as scene, serving_app(create_app(settings), settings) as http:
        yield World(http, Sessions(scene.database), await _arranged(scene, settings))


async def _arranged(scene: Scene, settings: Settings) -> dict[str, str]:
    job = await scene.failed_generation()
    plan = await scene.plan()
    async with scene.database.transaction() as connection:
        await connection.execute(_KNOWN)
    return {
        "job_id": str(job.job_id),
        "event_id": str(await scene.failed_event_of(job)),
        "plan_id": str(plan.id),
        "cancel_id": str((await cancel_plans(scene.database).make(JobFilter(), by="ann")).id),
        "discard_id": str((await discard_plans(scene.database).make(DiscardChoice(), by="ann")).id),
        "endpoint_id": str(
            (await add_endpoint(scene.database, settings, "acme", "https://acme.example/in")).endpoint.id
        ),
    }


# What the fleet knows of an LLM endpoint, a call without a price, and a plan's share.
_KNOWN = """
INSERT INTO llm_hours VALUES ('https://llm/v1', 'm', date_trunc('hour', now(), 'UTC'), 4, 1, 0, 2, 10, 20);
INSERT INTO llm_gate VALUES ('https://llm/v1', now() + interval '1 hour', 'llm_rate_limited');
INSERT INTO llm_dialects VALUES
    ('https://llm/v1', 'm', 'auto', 'prompt', 'max_tokens', true, 'more was refused', now());
INSERT INTO llm_holds (endpoint, model, credential, blame, code, sentence, next_probe_at)
VALUES ('https://llm/v1', 'm', 'c', 'account', 'llm_insufficient_quota', 'has no credit', now());
INSERT INTO llm_prices VALUES ('m', now() - interval '1 day', 1, 1, 'USD');
INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at)
VALUES (gen_random_uuid(), 1, 1, gen_random_uuid(), 'failed', now());
INSERT INTO plan_shares (plan, weight, budget) VALUES ('team', 2, 5000000);
"""


def test_the_table_has_every_route(settings: Settings) -> None:
    """A route that is added is added to the table, with who may call it."""
    console = Console(settings, Database(settings.database_url, size=1), Broker(settings, name="test"))
    routes = [one for one in console.routes if isinstance(one, Route)]
    named = {(one.path, method) for one in routes for method in one.methods or () if method != "HEAD"}
    table = {(path, "GET") for path in (*PAGES, *LIVE)} | {(path, "POST") for path in ACTIONS}
    assert {(path, method) for path, method in named if path not in OPEN} == table
    assert [one.path for one in console.routes if isinstance(one, Mount)] == ["/static"]


async def test_pages_are_for_those_who_are_signed_in(world: World) -> None:
    """Nobody else gets more than the way to the sign-in; a bearer token in a header opens nothing."""
    operator, viewer = await world.session("operator"), await world.session("viewer")
    guesses: tuple[dict[str, str], ...] = (
        {},
        {"Authorization": f"Bearer {_token('operator')}"},
        {"Cookie": "teamfit_console=guessed"},
    )
    for path in map(world.path, PAGES):
        for headers in guesses:
            answer = await world.get(path, None, **headers)
            assert answer.status == 303, path
            assert answer.headers["Location"].startswith("/sign-in?next=")
        for session in (viewer, operator):
            answer = await world.get(path, session)
            assert answer.status == 200, await answer.text()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_no_page_shows_a_word_of_python(world: World, database: Pool) -> None:
    """A page shows a dash for what is not known, or leaves it out. It said "run None" of an event without a run."""
    await database.execute("UPDATE failed_events SET run = NULL, organization_id = NULL, event_type = NULL")
    operator = await world.session("operator")
    for path in map(world.path, set(PAGES) - {"/operating"}):  # which quotes commands and settings
        text = re.sub(r"<[^>]*>", " ", await (await world.get(path, operator)).text())
        assert not re.search(r"\b(None|True|False)\b", text), path
        assert not re.search(r"\w\.\.(\s|$)", text), path


async def test_a_job_that_is_not_known_is_not_offered_for_cancelling(world: World) -> None:
    """A form says how many would be cancelled, and has no button where that is none."""
    operator = await world.session("operator")
    answer = await (await world.post("/jobs/cancel", operator, chosen=str(uuid4()))).text()
    assert "not known" in answer
    assert "<button" not in answer.partition('action="/jobs/cancel/confirmed"')[2].partition("</form>")[0]


async def test_a_job_says_what_it_waits_for(world: World, database: Pool) -> None:
    """The page names the gate at which it stands, and where its time has gone."""
    asked = request()
    await database.execute(
        "INSERT INTO job_requests (job_id, organization_id, team_id, event) VALUES ($1, 'acme', 'acme-team', $2)",
        *(asked.job_id, asked.model_dump_json()),
    )
    page = await (await world.get(f"/jobs/{asked.job_id}", await world.session("viewer"))).text()
    assert "<dt>Waits for</dt><dd>quota, since " in page
    assert "Where its time has gone" in page


async def test_streams_are_for_those_who_are_signed_in(world: World) -> None:
    """A stream begins with the page as it is; without a session there is none."""
    viewer = await world.session("viewer")

    async def begins(path: str) -> None:
        assert (await world.get(path)).status == 401, path
        async with await world.get(path, viewer) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream"), path
            assert await answer.content.readuntil(b"data: ")

    # At once: the pages that are looked at are read in turn, and then there is a pause.
    async with asyncio.TaskGroup() as streams:
        for path in map(world.path, sorted(LIVE)):
            streams.create_task(begins(path))


@pytest.mark.parametrize("route", [*ACTIONS])
async def test_actions_are_for_operators_with_a_form_of_ours(world: World, route: str) -> None:
    """No session, a viewer, a form of another session or of another site: each is refused, and nothing is done."""
    path, fields = world.path(route).partition("?")[0], world.fields(route)
    operator = await world.session("operator")
    assert (await world.post(path, None, **fields)).status == 401
    assert (await world.post(path, await world.session("viewer"), **fields)).status == 403
    other = (await world.session("operator")).form_token
    for wrong in ("", other, "é"):
        assert (await world.post(path, operator, form_token=wrong, **fields)).status == 403
    foreign = {**_cookie(operator), "Sec-Fetch-Site": "cross-site"}
    data = {"form_token": operator.form_token, **fields}
    assert (await world.http.post(path, data=data, headers=foreign)).status == 403
    assert (await world.http.post(path, json=data, headers=_cookie(operator))).status == 415
    answer = await world.post(path, operator, **fields)
    assert answer.status == ACTIONS[route], await answer.text()


async def test_what_is_done_and_refused_is_in_the_log(world: World, database: Pool) -> None:
    """The page has every action with its actor; what a viewer tries is refused there, and a stranger is not in it."""
    operator, viewer = await world.session("operator"), await world.session("viewer")
    wish = {"kind": "pause", "subject": "generation", "reason": "a <b>bad</b> prompt"}
    page = await (await world.post("/workers/control", operator, **wish)).text()
    assert "runs in line" in page
    assert "a &lt;b&gt;bad&lt;/b&gt; prompt" in page
    assert await database.fetchval("SELECT count(*) FROM operator_actions WHERE action LIKE 'control.%'") == 0
    for session in (operator, viewer, None):
        await world.post("/workers/control/confirmed", session, **wish)
    assert 'name="subject" value="generation"' in await (await world.get("/workers", operator)).text()
    assert (await world.post("/workers/control/end", operator, kind="pause", subject="generation")).status == 303
    log = await database.fetch(
        "SELECT action, target, actor, face, outcome FROM operator_actions WHERE face = 'console' ORDER BY at"
    )
    assert [tuple(one) for one in log] == [
        ("control.pause", "stage generation", "ann", "console", "done"),
        ("request", "POST /workers/control/confirmed", "ann", "console", "refused"),
        ("control.pause.end", "stage generation", "ann", "console", "done"),
    ]
    shown = await (await world.get("/actions?outcome=refused", viewer)).text()
    assert "a viewer may look at everything here and change nothing" in shown
    assert "control.pause" not in shown


async def test_what_would_follow_is_said_before_it_is_done(world: World, database: Pool) -> None:
    """A price, a plan's share and an erasure have a page with their effects; its form does it, and it is logged."""
    operator = await world.session("operator")
    told = {
        "/llm/price": ("Calls on record that get their price", "0.15 in and 0.60 out USD", "Set the price"),
        "/organizations/plans/set": ("Organizations that have it", "50.00", "Do it"),
        "/organizations/plans/forget": ("Of them with values of their own", "weight 1 and no limits", "Do it"),
        "/organization/erase": ("Failed events", "This cannot be undone", "Erase for good"),
    }
    for route, words in told.items():
        page = await (await world.post(route, operator, **world.fields(route))).text()
        assert [word for word in words if word not in page] == [], route
    log = "SELECT action, actor FROM operator_actions WHERE face = 'console' ORDER BY at"
    assert await database.fetch(log) == []
    for route in told:
        assert (await world.post(f"{route}/confirmed", operator, **world.fields(route))).status < 400, route
    done = [tuple(one) for one in await database.fetch(log)]
    assert done == [(name, "ann") for name in ("llm.price", "plan.set", "plan.forget", "erase")]
    page = await (await world.post("/organization/erase", operator, id="nowhere")).text()
    assert "not known" in page


async def test_a_viewer_reads_no_words_of_an_endpoint(world: World) -> None:
    """Why one is held, and why it is asked as it is, may quote what a provider wrote."""
    for session, reads in ((await world.session("operator"), True), (await world.session("viewer"), False)):
        page = await (await world.get("/llm", session)).text()
        assert ("has no credit" in page, "more was refused" in page) == (reads, reads)
        assert ("<datalist" in page) is reads


async def test_a_token_signs_in_by_its_scope(world: World) -> None:
    """A customer's token is none of an operator's, whatever the organization."""
    for token in (_token("operator"), _token("viewer"), _token("viewer", "jobs")):
        answer, _ = await _sign_in(world, token)
        assert answer.status == 303
        cookie = answer.headers["Set-Cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "teamfit_console="))
        assert "Secure" not in cookie  # loopback over http
    for token in (_token("jobs"), _token()):
        assert (await _sign_in(world, token))[0].status == 403
    assert (await _sign_in(world, "no.token.atall"))[0].status == 401


async def test_a_link_signs_in_once(world: World, database: Pool, database_url: str) -> None:
    """Looking at it uses nothing up; the second use is refused, as is one that is made up."""
    books = Database(database_url, size=1)
    link = await make_link(books, "ann")
    await books.close()
    assert await database.fetchval("SELECT count(*) FROM console_links WHERE secret_hash = $1", link.encode()) == 0
    for _ in range(2):
        assert (await world.get(f"/sign-in/{link}")).status == 200
    statuses = [(await _sign_in(world, "", path=f"/sign-in/{one}"))[0].status for one in (link, link, "made-up")]
    assert statuses == [303, 403, 403]


async def test_a_session_ends_on_the_server(world: World) -> None:
    """Signing out makes the cookie worthless, wherever it was copied to; a repeat is refused."""
    operator = await world.session("operator")
    assert (await world.get("/jobs", operator)).status == 200
    assert (await world.post("/sign-out", operator)).status == 303
    assert (await world.get("/jobs", operator)).status == 303
    assert (await world.post("/sign-out", operator)).status == 401


async def test_the_sign_in_leads_to_the_console_alone(world: World) -> None:
    """An address that leads to another host leads to the overview instead."""
    for onward in ("//evil.example/", "https://evil.example/", "/\\evil.example", "\t//evil", "evil", "/a\nb"):
        answer, _ = await _sign_in(world, _token("viewer"), next=onward)
        assert answer.headers["Location"] == "/", onward
    answer, _ = await _sign_in(world, _token("viewer"), next="/jobs?status=failed")
    assert answer.headers["Location"] == "/jobs?status=failed"


async def test_viewers_see_no_texts_unless_the_setting_says_so(
    world: World, database: Pool, settings: Settings
) -> None:
    """Requirements, events and errors' texts are operators' alone by default, and nobody guesses by searching."""
    secret = "the model would not"
    event = f"/failed/{world.ids['event_id']}"
    pages = [event, "/failed", f"/jobs/{world.ids['job_id']}/events"]
    viewer = await world.session("viewer")
    for path in pages:
        assert secret not in await (await world.get(path, viewer)).text()
    assert secret in await (await world.get(event, await world.session("operator"))).text()
    assert (await world.get("/jobs?words=puzzles", viewer)).status == 422
    open_to_viewers = settings.model_copy(update={"console_viewers_read_texts": True})
    async with (
        serving_app(create_app(open_to_viewers), open_to_viewers) as http,
        http.get(event, headers=_cookie(viewer)) as answer,
    ):
        assert secret in await answer.text()


async def test_entries_of_a_stream_are_texts_too(world: World, settings: Settings) -> None:
    """Operators read an entry's event, escaped; viewers see that there is one."""
    async with Redis.from_url(settings.broker_url) as redis:
        await redis.xadd("job-requests", {"key": "a-key", "event": "<b>a wish</b>", "h:source": "<i>nobody</i>"})
    for role in ("operator", "viewer"):
        page = await (await world.get("/streams/entries?topic=job-requests", await world.session(role))).text()
        assert "a-key" in page
        assert "<b>a wish" not in page
        assert ("&lt;b&gt;a wish" in page, "nobody" in page) == ((role == "operator",) * 2)


async def test_every_help_leads_to_a_section_of_the_operators_page(world: World) -> None:
    """A link to what to do about a fault has its heading on the page that the console serves."""
    operator = await world.session("operator")
    guide = await (await world.get("/operating", operator)).text()
    anchors = set(re.findall(r'<h\d id="([^"]+)"', guide))
    linked: set[str] = set()
    for path in map(world.path, PAGES):
        page = await (await world.get(path, operator)).text()
        linked |= set(re.findall(r'href="/operating#([^"]+)"', page))
    assert len(linked) >= 5
    assert linked <= anchors
    assert "href=" not in re.sub(
        r'href="#[^"]*"', "", guide.partition('<div class="wide guide"')[2].partition("</main>")[0]
    )


async def test_a_job_with_very_many_events_shows_the_first_and_leads_to_all(world: World, database: Pool) -> None:
    """The page is bounded and says so; the pages of its events have each once, in their order."""
    job = world.ids["job_id"]
    await database.execute(
        "INSERT INTO job_events (job_id, event_id, run, type, organization_id, time, event) "
        "SELECT $1, 'many-' || n, 1, 'teamfit.job.progressed.v1', 'acme', now(), '{}' "
        "FROM generate_series(1, 450) AS n",
        UUID(job),
    )
    operator = await world.session("operator")
    page = await (await world.get(f"/jobs/{job}", operator)).text()
    assert f"The first {MOST_FACTS} events are here" in page
    path, places = f"/jobs/{job}/events", list[int]()
    while path:
        page = await (await world.get(path, operator)).text()
        places += [int(place) for place in re.findall(r"place (\d+)", page)]
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1] if following else ""
    archived = await database.fetch("SELECT sequence FROM job_events WHERE job_id = $1 ORDER BY sequence", UUID(job))
    assert places == [row["sequence"] for row in archived]
    assert len(places) >= 450


async def test_chosen_failed_events_are_discarded_by_a_plan(world: World, database: Pool) -> None:
    """The list's boxes make a plan of those alone; without one that is chosen nothing is planned."""
    operator = await world.session("operator")
    page = await (await world.get("/failed", operator)).text()
    assert f'name="chosen" value="{world.ids["event_id"]}"' in page
    assert (await world.post("/discards", operator, only_chosen="yes")).status == 422
    made = await world.post("/discards", operator, only_chosen="yes", chosen=world.ids["event_id"])
    plan = made.headers["Location"]
    assert "1 failed events about 1 jobs" in await (await world.get(plan, operator)).text()
    assert (await world.post(f"{plan}/apply", operator, because="known", rate="100")).status == 303
    await wait_for(lambda: _is_discarded(database), what="the plan to be applied")
    assert "finished" in await (await world.get(plan, operator)).text()


async def _is_discarded(database: Pool) -> bool:
    left = await database.fetchval("SELECT count(*) FROM failed_events WHERE state <> 'discarded'")
    state = await database.fetchval("SELECT state FROM discard_plans ORDER BY created_at DESC LIMIT 1")
    return bool(left == 0 and state == "finished")


async def test_a_secret_of_a_webhook_is_shown_once(world: World, database: Pool) -> None:
    """On the answer that makes it, and on no page afterwards; a viewer sees the host of an endpoint alone."""
    operator, viewer = await world.session("operator"), await world.session("viewer")
    fields = {"organization_id": "acme", "url": "https://hooks.example/a-path", "chosen": "job.completed"}
    answer = await (await world.post("/webhooks/add", operator, **fields)).text()
    secret = await database.fetchval("SELECT secret FROM webhook_endpoints WHERE url LIKE '%a-path'")
    assert secret in answer
    assert answer.count("https://hooks.example/a-path") == 1
    endpoint = await database.fetchrow("SELECT id, types FROM webhook_endpoints WHERE url LIKE '%a-path'")
    assert endpoint is not None
    assert endpoint["types"] == ["job.completed"]
    for path in ("/webhooks", f"/webhooks/{endpoint['id']}"):
        page = await (await world.get(path, operator)).text()
        assert "a-path" in page
        assert secret not in page
        page = await (await world.get(path, viewer)).text()
        assert "hooks.example" in page
        assert "a-path" not in page


async def test_lists_of_webhooks_go_on_page_by_page(world: World, database: Pool) -> None:
    """Every endpoint and every delivery stands on one page, and on one alone."""
    await database.execute(
        "INSERT INTO webhook_endpoints (id, organization_id, url, types, secret, created_at) "
        "SELECT gen_random_uuid(), 'org_' || n % 7, 'https://h.example/' || n, '{job.failed}', 's', now() "
        "FROM generate_series(1, 230) AS n"
    )
    endpoint = world.ids["endpoint_id"]
    await database.execute(
        "INSERT INTO webhook_deliveries (endpoint_id, event_id, type, body, created_at, due_at, given_up_at) "
        "SELECT $1, 'an_event_' || n, 'job.failed', '{}', now(), now(), CASE WHEN n % 2 = 0 THEN now() END "
        "FROM generate_series(1, 230) AS n",
        UUID(endpoint),
    )
    operator = await world.session("operator")
    assert len(await _all_pages(world, operator, "/webhooks", r'href="/webhooks/([0-9a-f-]{36})"')) == 231
    found = await _all_pages(world, operator, f"/webhooks/{endpoint}", r">(an_event_\d+)<")
    assert len(found) == 230
    given_up = await _all_pages(world, operator, f"/webhooks/{endpoint}?state=given_up", r">(an_event_\d+)<")
    assert len(given_up) == 115


async def _all_pages(world: World, session: Session, path: str, pattern: str) -> set[str]:
    """Return what fits a pattern on all pages of a list; each once, or the test fails."""
    found: list[str] = []
    while path:
        page = await (await world.get(path, session)).text()
        found += re.findall(pattern, page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(found) == len(set(found))
    return set(found)


WRONG = (
    ("/streams/entries", 422),
    ("/streams/entries?topic=nothing", 422),
    ("/streams/entries?topic=job-requests&group=nobody", 422),
    ("/streams/entries?topic=job-requests&cursor=x", 422),
    (f"/jobs/{uuid4()}", 404),
    (f"/failed/{uuid4()}", 404),
    (f"/replay/{uuid4()}", 404),
    (f"/discards/{uuid4()}", 404),
    (f"/webhooks/{uuid4()}", 404),
    ("/webhooks?cursor=nowhere", 422),
    ("/webhooks?organization_id=%00", 422),
    ("/organizations?name=%00", 422),
    ("/cancels?before=yesterday", 422),
    ("/organization?id=nobody", 404),
    ("/llm?hours=0", 422),
    ("/llm?hours=many", 422),
    ("/llm?colour=red", 422),
    ("/organization", 422),
    ("/jobs?status=lost", 422),
    ("/jobs?error_code=llm_refusl", 422),
    ("/failed?stage=generaton", 422),
    ("/failed/groups?reason=max_delivery", 422),
    ("/schedule?topic=job-request", 422),
    ("/jobs?cursor=nowhere", 422),
    ("/jobs?colour=red", 422),
    ("/jobs?limit=100000", 422),
    ("/jobs?run=a", 422),
    ("/jobs?organization_id=%00", 422),
    ("/failed?since=yesterday", 422),
    ("/failed?after=nowhere", 422),
    ("/replay?before=yesterday", 422),
    ("/failed?stage=%00", 422),
    ("/actions?outcome=lost", 422),
    ("/actions?cursor=nowhere", 422),
    ("/actions?target=%00", 422),
    ("/nowhere", 404),
    ("/jobs/nobody", 404),
)


async def test_what_cannot_be_shown_says_why(world: World) -> None:
    """An address that is wrong gets a page with the field and the fix, never an error of ours."""
    operator = await world.session("operator")
    for path, status in WRONG:
        answer = await world.get(path, operator)
        assert answer.status == status, path
        page = await answer.text()
        assert 'role="alert"' in page
        assert not re.search("[Ii]nput should|[Vv]alue error|String should|extra inputs", page, re.IGNORECASE), path


@pytest.mark.parametrize("prefix", ["/teamfit", "/a/b"])
async def test_everything_stays_below_a_prefix(database_url: str, redis_url: str, prefix: str) -> None:
    """Addresses, cookies and headers are right where a proxy serves the console below a path."""
    settings = api_settings(database_url=database_url, broker_url=redis_url).model_copy(update={"root_path": prefix})
    books = Database(database_url, size=1)
    session = await Sessions(books).begin("ann", "operator")
    await books.close()
    async with serving_app(create_app(settings), settings) as http:
        for path in (f"{prefix}/jobs", "/jobs"):
            async with http.get(path, allow_redirects=False) as answer:
                assert answer.headers["Location"] == f"{prefix}/sign-in?next=%2Fjobs"
            async with http.get(path, headers=_cookie(session)) as answer:
                page = await answer.text()
                assert answer.headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")
                assert f'href="{prefix}/static/console.css"' in page
                assert f'data-live="{prefix}/live/jobs"' in page
        async with http.get(f"{prefix}/static/console.js") as answer:
            assert answer.status == 200
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        async with http.get(f"{prefix}/sign-in") as answer:
            assert f"Path={prefix}" in answer.headers["Set-Cookie"]


def _token(*scopes: str) -> str:
    return issue_token(SIGNING_KEY, organization_id="acme", subject="ann", scopes=scopes)


async def _sign_in(
    world: World, token: str, *, path: str = "/sign-in", **fields: str
) -> tuple[aiohttp.ClientResponse, str]:
    shown = await world.http.get(path)
    page = await shown.text()
    form_token = page.partition('name="form_token" value="')[2].partition('"')[0]
    cookie = shown.headers.get("Set-Cookie", "").partition(";")[0]
    data = {"form_token": form_token, "token": token, **fields}
    return await world.http.post(path, data=data, headers={"Cookie": cookie}, allow_redirects=False), page
