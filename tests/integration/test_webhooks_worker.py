"""The webhooks stage as processes: killed while it sends, and told by commands as an operator tells it."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from infra.local.processes import free_port
from infra.settings import Settings, settings
from producers.broker import Broker
from streams.jobs.events import JobEvent
from streams.jobs.topics import JOB_EVENTS, record
from tests.api_server import api_settings, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.webhooks_scene import Receiver, ended, receiving
from tests.organizations import add_organizations
from tests.waiting import wait_for

_ROOT = Path(__file__).parents[2]
_ALLOWED = {"TEAMFIT_WEBHOOK_ALLOW_PRIVATE": "true", "TEAMFIT_WEBHOOK_ALLOW_HTTP": "true"}
_ALL_DELIVERED = "SELECT count(*) = $1 AND bool_and(delivered_at IS NOT NULL) FROM webhook_deliveries"
_PAGE = (_ROOT / "docs" / "webhooks.md").read_text()


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands accept this machine's addresses."""
    for name, value in _ALLOWED.items():
        monkeypatch.setenv(name, value)


@contextmanager
def worker(database_url: str, redis_url: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker of the stage."""
    environment = {**os.environ, **_ALLOWED, "DATABASE_URL": database_url, "BROKER_URL": f"{redis_url}?lease=1s"}
    with log.open("ab") as output:
        command = [sys.executable, "-m", "infra.cli", "worker", "webhooks"]
        process = subprocess.Popen(command, env=environment, cwd=_ROOT, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()


async def publish(redis_url: str, *facts: JobEvent) -> None:
    """Write facts as the stages do."""
    broker = Broker(Settings(broker_url=redis_url, _env_file=None), name="test")
    await broker.publish([record(JOB_EVENTS, fact) for fact in facts])
    await broker.close()


async def add(teamfit: Run, receiver: Receiver, organization: str = "acme") -> str:
    """Add an endpoint by command; return its secret."""
    said = await teamfit("webhooks", "add", organization, receiver.url, "--json")
    assert said.exit_code == 0, said.output
    return str(json.loads(said.stdout)["secret"])


async def test_a_worker_that_is_killed_between_sending_and_noting_loses_nothing(
    teamfit: Run,
    database: Pool,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """Each event arrives, with its one ID, and at no other organization's receiver."""
    await add_organizations(database)
    log = tmp_path / "worker.log"
    async with receiving() as acme, receiving() as rival:
        secrets = {"acme": await add(teamfit, acme), "rival": await add(teamfit, rival, "rival")}
        facts = [await ended(database, "acme" if number % 2 else "rival") for number in range(12)]
        for _ in range(2):
            killed = asyncio.Event()
            with worker(database_url, redis_url, log) as process:

                async def dies(
                    _request: web.Request, process: "subprocess.Popen[bytes]" = process, killed: asyncio.Event = killed
                ) -> web.StreamResponse:
                    process.kill()
                    killed.set()
                    return web.Response(status=204)

                acme.answer = rival.answer = dies
                await publish(redis_url, *facts[:4])
                await asyncio.wait_for(killed.wait(), 60)
                process.wait()
            # As after a minute: the lease of what it had taken is over.
            await database.execute("UPDATE webhook_deliveries SET due_at = least(due_at, now())")

        async def taken(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=204)

        acme.answer = rival.answer = taken
        with worker(database_url, redis_url, log):
            await publish(redis_url, *facts)
            await wait_for(
                lambda: database.fetchval(_ALL_DELIVERED, len(facts)),
                deadline_s=60,
                what="all to be delivered",
            )
        for name, receiver in (("acme", acme), ("rival", rival)):
            assert {event["data"]["organization_id"] for event in receiver.verified(secrets[name])} == {name}
            assert set(receiver.ids) == {fact.id for fact in facts if fact.data.organization_id == name}
        assert len(acme.ids) + len(rival.ids) > len(facts), "what was not noted was sent again"


@asynccontextmanager
async def example(kind: str, command: list[str], secret: str, port: int, folder: Path) -> AsyncIterator[Path]:
    """Run a receiver of the page; give the file that it prints to."""
    (code,) = re.findall(rf"```{kind}\n(.*?)```", _PAGE, re.DOTALL)
    program, printed = folder / f"receiver.{kind}", folder / "printed"
    program.write_text(code)
    environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
    with printed.open("wb") as output:
        process = subprocess.Popen([*command, str(program)], env=environment, stdout=output, stderr=output)
    try:
        yield printed
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["python", "javascript"])
async def test_the_receivers_of_the_page_verify_what_comes(
    teamfit: Run,
    database: Pool,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    kind: str,
) -> None:
    """As a new customer's: added, tried out, told of a job; what somebody else sends gets 401."""
    if kind == "javascript" and shutil.which("node") is None:
        pytest.skip("node is not installed")
    await add_organizations(database)
    port = free_port()
    secret = await add(teamfit, Receiver(f"http://127.0.0.1:{port}/hooks"))
    (known,) = json.loads((await teamfit("webhooks", "list", "--json")).stdout)
    command = [sys.executable] if kind == "python" else ["node"]
    async with example(kind, command, secret, port, tmp_path) as printed, aiohttp.ClientSession() as http:

        async def refused() -> bool:
            forged = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
            try:
                async with http.post(known["url"], headers=forged, data=b"{}") as answer:
                    return answer.status == 401
            except aiohttp.ClientError:
                return False

        await wait_for(refused, deadline_s=60, what="the receiver to refuse what is forged")
        with worker(database_url, redis_url, tmp_path / "worker.log"):
            said = await teamfit("webhooks", "test", known["id"], "--wait", "60")
            assert (said.exit_code, "delivered" in said.stdout) == (0, True), said.output
            fact = await ended(database)
            await publish(redis_url, fact)
            await wait_for(lambda: str(fact.job_id) in printed.read_text(), deadline_s=60, what="the job to be told of")


async def test_commands_say_what_they_did(teamfit: Run, database: Pool) -> None:
    """Every command of the group, for people and for programs, and its errors."""
    await add_organizations(database)
    assert "None yet" in (await teamfit("webhooks", "list")).stdout
    secret = await add(teamfit, Receiver("http://127.0.0.1:1/hooks"))
    (known,) = json.loads((await teamfit("webhooks", "list", "--organization", "acme", "--json")).stdout)
    assert secret not in json.dumps(known)
    which = known["id"]
    assert which in (await teamfit("webhooks", "show", which)).stdout
    long = ("webhooks", "add", "acme", f"http://127.0.0.1:1/{'long' * 30}", "--event", "job.failed")
    added = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", (await teamfit(*long)).stdout)
    assert len(added) == 1, "an ID is copied from the table, so it is whole"
    assert (await teamfit("webhooks", "remove", *added, "--yes")).exit_code == 0
    rotated = await teamfit("webhooks", "rotate", which, "--keep", "2h")
    assert "whsec_" in rotated.stdout
    assert secret not in rotated.stdout
    said = await teamfit("webhooks", "test", which, "--wait", "0")
    assert (said.exit_code, "does a worker of the stage `webhooks` run?" in said.stdout) == (1, True)
    waits = json.loads((await teamfit("webhooks", "deliveries", which, "--state", "waiting", "--json")).stdout)
    assert [(one["type"], one["state"]) for one in waits] == [("webhook.test", "waiting")]
    assert "webhook.test" in (await teamfit("webhooks", "deliveries", which)).stdout
    assert "they asked" in (await teamfit("webhooks", "disable", which, "--because", "they asked")).stdout
    assert (await teamfit("webhooks", "enable", which)).exit_code == 0
    assert "Removed." in (await teamfit("webhooks", "remove", which, "--yes")).stdout
    for wrong in (("show", which), ("add", "acme", "nonsense"), ("add", "unheard-of", "http://127.0.0.1:1/")):
        said = await teamfit("webhooks", *wrong)
        assert (said.exit_code, said.stderr.splitlines()[-1].startswith("teamfit: ")) == (1, True), said.output
    log = await database.fetch(
        "SELECT action FROM operator_actions WHERE outcome = 'done' AND face = 'cli' ORDER BY at"
    )
    done = ["add", "add", "remove", "rotate", "test", "disable", "enable", "remove"]
    assert [row["action"] for row in log] == [f"webhook.{what}" for what in done]


async def test_operators_do_the_same_over_http(database: Pool, database_url: str) -> None:
    """With the scope `operator`; a wrong endpoint is refused with the field, and what is not there with 404."""
    await add_organizations(database)
    operator = bearer("ops", "operator")
    wanted = api_settings(database_url=database_url).model_copy(
        update={"webhook_allow_private": True, "webhook_allow_http": True}
    )
    async with serving(wanted) as http, receiving() as receiver:

        async def ask(method: str, path: str, body: object = None, *, status: int = 200) -> dict[str, object]:
            url = f"/api/ops/webhooks{path}"
            async with http.request(method, url, json=body, headers=operator) as answer:
                assert answer.status == status, await answer.text()
                return dict(await answer.json())

        async with http.get("/api/ops/webhooks", headers=bearer()) as answer:
            assert answer.status == 403
        new = {"organization_id": "acme", "url": receiver.url, "types": ["job.failed"]}
        made = await ask("POST", "", new, status=201)
        assert str(made["secret"]).startswith("whsec_")
        endpoint = made["endpoint"]
        assert isinstance(endpoint, dict)
        path = f"/{endpoint['id']}"
        assert (await ask("GET", path))["url"] == receiver.url
        assert (await ask("GET", "?organization_id=rival"))["endpoints"] == []
        assert str((await ask("POST", f"{path}/rotate", {"keep_s": 60}))["secret"]).startswith("whsec_")
        await ask("POST", f"{path}/test", status=202)
        assert len((await ask("GET", f"{path}/deliveries?state=waiting"))["deliveries"]) == 1  # type: ignore[arg-type]
        assert "they asked" in str(
            (await ask("POST", f"{path}/disable", {"because": "they asked"}))["disabled_because"]
        )
        assert (await ask("POST", f"{path}/enable"))["disabled_because"] is None
        wrong = await ask("POST", "", {**new, "types": ["job.exploded"]}, status=422)
        assert "job.exploded" in str(wrong["detail"])
        unknown = await ask("POST", "", {**new, "organization_id": "unheard-of"}, status=404)
        assert unknown["code"] == "organization_not_found"
        await ask("DELETE", path)
        assert (await ask("GET", path, status=404))["code"] == "webhook_not_found"
    assert settings().webhook_allow_private
