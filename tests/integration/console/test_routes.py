"""Every route of the console, called directly by everybody who may or may not."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from uuid import uuid4

import aiohttp
import pytest
from redis.asyncio import Redis
from starlette.routing import Mount, Route

from infra.api.console import create_app
from infra.auth import issue_token
from infra.console import Console, make_link
from infra.console.sessions import Role, Session, Sessions
from infra.operations.cancel_plans import CancelPlans
from infra.operations.job_search import JobFilter
from infra.postgres import Database
from infra.settings import Settings
from producers.broker import Broker
from tests.api_server import SIGNING_KEY, api_settings, serving_app
from tests.conftest import Pool
from tests.integration.quota_scene import request
from tests.integration.replay_scene import Scene, open_scene

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
    "/replay",
    "/replay/{plan_id:uuid}",
    "/organizations",
    "/organization",
    "/streams",
    "/streams/entries",
    "/schedule",
    "/workers",
    "/actions",
)
LIVE = {f"/live{path}" for path in PAGES if not path.endswith("events") and path != "/failed/{event_id:uuid}"} - {
    "/live/failed/groups",
    "/live/organizations",
    "/live/streams/entries",
}
# With the status for an operator; nobody else may.
ACTIONS = {
    "/jobs/cancel": 200,
    "/jobs/cancel/confirmed": 200,
    "/cancels": 303,
    "/cancels/{cancel_id:uuid}/apply": 303,
    "/cancels/{cancel_id:uuid}/pause": 409,
    "/cancels/{cancel_id:uuid}/abort": 303,
    "/failed/plan": 303,
    "/failed/{event_id:uuid}/discard": 303,
    "/replay/{plan_id:uuid}/apply": 303,
    "/replay/{plan_id:uuid}/pause": 409,
    "/replay/{plan_id:uuid}/abort": 303,
    "/organization/change": 303,
    "/organization/recount": 303,
    "/schedule/run": 303,
    "/workers/control": 200,
    "/workers/control/confirmed": 303,
    "/workers/control/end": 404,
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
            return {"rate": "100"} | ({"because": "a test"} if route.startswith("/cancels") else {})
        if route.endswith("/discard"):
            return {"because": "a test"}
        if route == "/organization/change":
            return {"id": "acme", "monthly_quota": "60"}
        if route.startswith("/workers/control"):
            return {"kind": "pause", "subject": "generation", "reason": "a test", "minutes": "5"} | (
                {"minutes": ""} if route.endswith("/end") else {}
            )
        if route == "/schedule/run":
            return {"task": "counts", "reason": "a test"}
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
        yield World(http, Sessions(scene.database), await _arranged(scene))


async def _arranged(scene: Scene) -> dict[str, str]:
    job = await scene.failed_generation()
    plan = await scene.plan()
    return {
        "job_id": str(job.job_id),
        "event_id": str(await scene.failed_event_of(job)),
        "plan_id": str(plan.id),
        "cancel_id": str((await CancelPlans(scene.database).make(JobFilter(), by="ann")).id),
    }


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
    for path in map(world.path, sorted(LIVE)):
        assert (await world.get(path)).status == 401, path
        async with await world.get(path, viewer) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream"), path
            assert await answer.content.readuntil(b"data: ")


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


WRONG = (
    ("/streams/entries", 422),
    ("/streams/entries?topic=nothing", 422),
    ("/streams/entries?topic=job-requests&group=nobody", 422),
    ("/streams/entries?topic=job-requests&cursor=x", 422),
    (f"/jobs/{uuid4()}", 404),
    (f"/failed/{uuid4()}", 404),
    (f"/replay/{uuid4()}", 404),
    ("/organization?id=nobody", 404),
    ("/organization", 422),
    ("/jobs?status=lost", 422),
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
        assert 'role="alert"' in await answer.text()


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
