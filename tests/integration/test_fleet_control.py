"""Operators control a running fleet by the API; real workers obey, a killed one and its successor included."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infra.local.environment import environment
from infra.local.processes import free_port
from infra.operations.controls import PAUSABLE
from infra.settings import Settings
from streams.jobs.stages import STAGES
from tests.api_server import api_settings, bearer, serving
from tests.commands import commands
from tests.conftest import Pool
from tests.integration.generation.conftest import Endpoint, offline_endpoint
from tests.integration.quota_scene import add_organization
from tests.verified import assert_consistent
from tests.waiting import wait_for

_ROOT = str(Path(__file__).parents[2])
_OPERATOR = bearer("ops", "operator")
_DEADLINE_S = 60.0


@dataclass
class Fleet:
    """An API, workers of all stages in one process, an LLM."""

    http: aiohttp.ClientSession
    pool: Pool
    llm: Endpoint
    settings: Settings
    logs: Path
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> "subprocess.Popen[bytes]":
        """Start a process with all stages."""
        with (self.logs / f"worker-{len(self.workers)}").open("wb") as sink:
            command = [sys.executable, "-m", "infra.cli", "worker", "all"]
            worker = subprocess.Popen(command, env=environment(self.settings), cwd=_ROOT, stdout=sink, stderr=sink)
        self.workers.append(worker)
        return worker

    async def post(self, path: str, body: Mapping[str, object], *, status: int = 200) -> Any:
        async with self.http.post(f"/api/ops/controls{path}", json=body, headers=_OPERATOR) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def alive(self, pid: int) -> Any:
        """Return what the process with this ID has told, if it lives."""
        async with self.http.get("/api/ops/workers", headers=_OPERATOR) as answer:
            found = (await answer.json())["processes"]
        return next((one for one in found if (one["pid"], one["state"]) == (pid, "alive")), None)

    async def doing(self, worker: "subprocess.Popen[bytes]", stage: str) -> Any:
        """Return what a worker does in a stage, once it has told."""
        told = await self.alive(worker.pid)
        return next((one for one in told["doing"] if one["stage"] == stage), None) if told else None

    async def ask(self, organization: str = "acme") -> str:
        """Ask for activities; return the job's ID."""
        wish = {"organization_id": organization, "team_id": f"{organization}-team", "requirements": "a game outdoors"}
        async with self.http.post("/api/activities/generate-custom", json=wish, headers=bearer(organization)) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["job_id"])

    async def job(self, job_id: str, organization: str = "acme") -> Any:
        async with self.http.get(f"/api/jobs/{job_id}", headers=bearer(organization)) as answer:
            return await answer.json()

    async def completes(self, job_id: str, organization: str = "acme") -> None:
        async def completed() -> bool:
            return bool((await self.job(job_id, organization)).get("status") == "completed")

        await wait_for(completed, deadline_s=_DEADLINE_S, what=f"the job of {organization} to complete")

    async def waits_at(self, job_id: str, gate: str, organization: str = "acme") -> Any:
        async def waits() -> Any:
            found = (await self.job(job_id, organization)).get("waiting_for")
            assert found is not None, "it waits for nothing"
            assert found["gate"] == gate, found
            return found

        return await wait_for(waits, deadline_s=_DEADLINE_S, what=f"the job to wait at {gate}")

    async def calls(self) -> int:
        return int((await self.llm.calls())["received"])


@asynccontextmanager
async def _opened(pool: Pool, database_url: str, redis_url: str, logs: Path) -> AsyncIterator[Fleet]:
    for name in ("acme", "birch"):
        await add_organization(pool, name)
    async with offline_endpoint() as llm:
        given = api_settings(database_url=database_url, broker_url=f"{redis_url}?lease=2s").model_dump()
        settings = Settings(
            _env_file=None,
            **{name: given[name] for name in ("database_url", "broker_url", "signing_key")},
            openai_base_url=f"http://127.0.0.1:{llm.port}/v1",
            openai_api_key="test-key",  # type: ignore[arg-type] # read as a secret
            worker_port=free_port(),
            generation_concurrency=8,
        )
        async with serving(settings) as http:
            fleet = Fleet(http, pool, llm, settings, logs)
            try:
                yield fleet
            finally:
                for worker in fleet.workers:
                    worker.kill()
                    worker.wait()


@pytest.fixture
async def fleet(database: Pool, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet without workers yet, and two customers."""
    async with _opened(database, database_url, redis_url, tmp_path) as opened:
        yield opened


async def test_a_pause_survives_a_killed_worker(fleet: Fleet, database: Pool, database_url: str) -> None:
    """Runs of a paused stage wait, nothing is spent and no attempt counted, whoever dies; then all complete once."""
    first = fleet.start()
    await wait_for(lambda: fleet.alive(first.pid), deadline_s=_DEADLINE_S, what="the worker to tell of itself")
    paused = {"kind": "pause", "subject": "generation", "reason": "a bad prompt"}
    assert (await fleet.post("/effects", paused))["effects"]["workers"] == 1
    assert await database.fetchval("SELECT count(*) FROM fleet_controls") == 0
    await fleet.post("", paused)

    async def obeys(worker: "subprocess.Popen[bytes]") -> bool:
        stage = await fleet.doing(worker, "generation")
        return stage is not None and "a bad prompt" in (stage["paused"] or "")

    await wait_for(lambda: obeys(first), deadline_s=_DEADLINE_S, what="the worker to obey")
    jobs = [await fleet.ask() for _ in range(3)]
    for job in jobs:
        await fleet.waits_at(job, "pause")
    port = fleet.settings.worker_port
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as pages, pages.get("/readyz") as answer:
        said = await answer.json()
        assert (answer.status, said["status"], said["problems"]) == (200, "paused", [])
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = fleet.start()
    await wait_for(lambda: obeys(second), deadline_s=_DEADLINE_S, what="the worker's successor to obey")
    more = await fleet.ask()
    await fleet.waits_at(more, "pause")
    assert await fleet.calls() == 0
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == 0
    await fleet.post("/end", {"kind": "pause", "subject": "generation"})
    for job in (*jobs, more):
        await fleet.completes(job)
    assert await fleet.calls() == len(jobs) + 1
    assert await database.fetchval("SELECT max(attempt) FROM generation_attempts") == 1
    await assert_consistent(database_url, deadline_s=_DEADLINE_S)
    done = await database.fetch("SELECT action, target, face, outcome FROM operator_actions ORDER BY at")
    assert [tuple(one) for one in done] == [
        ("control.pause", "stage generation", "api", "done"),
        ("control.pause.end", "stage generation", "api", "done"),
    ]


@pytest.mark.parametrize("stage", ["quota", "generation"])
async def test_one_organization_waits_and_others_go_on(fleet: Fleet, stage: str) -> None:
    """Its run waits at the stage and says so; another's completes; resumed, or expired, its own does too."""
    await fleet.post("", {"kind": "pause", "subject": stage, "organization_id": "acme", "reason": "they asked"})
    worker = fleet.start()
    await wait_for(lambda: fleet.alive(worker.pid), deadline_s=_DEADLINE_S, what="the worker to tell of itself")
    theirs, others = await fleet.ask(), await fleet.ask("birch")
    await fleet.completes(others, "birch")
    assert (await fleet.waits_at(theirs, "pause"))["until"] is None
    assert (await fleet.llm.calls())["received"] == 1
    await fleet.post("/end", {"kind": "pause", "subject": stage, "organization_id": "acme"})
    await fleet.completes(theirs)
    expiring = {"kind": "pause", "subject": stage, "organization_id": "acme", "reason": "a moment", "for_s": 3}
    await fleet.post("", expiring)
    await fleet.completes(await fleet.ask())


async def test_the_intake_says_why_it_is_stopped(fleet: Fleet, database: Pool) -> None:
    """Requests get 503 with the reason and when to come back; jobs can be read, and the API is ready all the same."""
    await fleet.post("", {"kind": "intake", "reason": "we move house", "for_s": 600})
    wish = {"organization_id": "acme", "team_id": "acme-team", "requirements": "a game outdoors"}

    async def stopped() -> Any:
        async with fleet.http.post("/api/activities/generate-custom", json=wish, headers=bearer()) as answer:
            return answer.status == 503 and (answer.headers["Retry-After"], await answer.json())

    retry_after, problem = await wait_for(stopped, what="the intake to be stopped")
    assert 1 <= int(retry_after) <= 600
    assert problem["code"] == "intake_stopped"
    assert "we move house" in problem["detail"]

    async def ready() -> bool:
        async with fleet.http.get("/readyz") as answer:
            assert (await answer.json())["paused"] == {"intake": "we move house"}
            return answer.status == 200

    await wait_for(ready, what="the API to be ready")  # a busy machine may be slow to answer its questions
    async with fleet.http.get("/api/jobs", headers=bearer()) as answer:
        assert answer.status == 200
    viewer = bearer("ops", "viewer")
    async with fleet.http.post("/api/ops/controls/end", json={"kind": "intake"}, headers=viewer) as answer:
        assert answer.status == 403
    await fleet.post("/end", {"kind": "intake"})

    async def opened() -> bool:
        async with fleet.http.post("/api/activities/generate-custom", json=wish, headers=bearer()) as answer:
            return answer.status == 202

    await wait_for(opened, what="the intake to open")
    assert await database.fetchval("SELECT count(*) FROM operator_actions WHERE outcome = 'refused'") == 1


async def test_a_worker_is_set_and_drained(fleet: Fleet) -> None:
    """A concurrency, a log level and a gate are obeyed while it runs; drained, it ends in good order and says so."""
    worker = fleet.start()
    told = await wait_for(lambda: fleet.alive(worker.pid), deadline_s=_DEADLINE_S, what="the worker to tell of itself")
    process = told["process"]
    assert told["stages"] == [one.name for one in STAGES]
    assert told["rss_bytes"] > 0
    much = {"kind": "concurrency", "subject": "generation", "value": "10000", "reason": "all of it"}
    effects = (await fleet.post("/effects", much))["effects"]
    assert effects["then"] == effects["now"], "no worker takes more than it was started with"
    assert "started with" in effects["limited_by"]
    await fleet.post("", {**much, "value": "1", "reason": "gently"})
    await fleet.post("", {"kind": "log_level", "subject": process[:8], "value": "debug", "reason": "a bug"})

    async def obeyed() -> bool:
        found = await fleet.alive(worker.pid)
        stage = await fleet.doing(worker, "generation")
        return bool(found["log_level"] == "debug" and stage["concurrency"] == 1)

    await wait_for(obeyed, deadline_s=_DEADLINE_S, what="the worker to obey")
    for job in [await fleet.ask() for _ in range(4)]:
        await fleet.completes(job)
    endpoint = f"http://127.0.0.1:{fleet.llm.port}/v1"
    await fleet.post("", {"kind": "gate", "subject": endpoint, "reason": "a new key", "for_s": 3000})
    waits = await fleet.ask()
    await fleet.waits_at(waits, "endpoint")
    await fleet.post("/end", {"kind": "gate", "subject": endpoint})
    await fleet.completes(waits)
    await fleet.post("", {"kind": "drain", "subject": process, "reason": "the host goes down"})
    await wait_for(lambda: worker.poll() is not None, deadline_s=_DEADLINE_S, what="the worker to end")
    assert worker.returncode == 0
    async with fleet.http.get("/api/ops/workers", headers=_OPERATOR) as answer:
        found = (await answer.json())["processes"]
    assert next(one for one in found if one["process"] == process)["state"] == "ended"


WRONG: tuple[tuple[dict[str, object], int, str], ...] = (
    ({"kind": "pause", "subject": "generation"}, 422, "reason"),
    ({"kind": "pause", "subject": "schedule", "reason": "x"}, 422, "stage"),
    ({"kind": "pause", "subject": "generaton", "reason": "x"}, 422, ", ".join(PAUSABLE)),
    ({"kind": "pause", "subject": "projection", "organization_id": "acme", "reason": "x"}, 422, "organization"),
    ({"kind": "pause", "subject": "quota", "organization_id": "nobody", "reason": "x"}, 404, "nobody"),
    ({"kind": "pause", "subject": "quota", "value": "3", "reason": "x"}, 422, "value"),
    ({"kind": "pause", "subject": "quota", "reason": "x", "for_s": 0}, 422, "for_s"),
    ({"kind": "concurrency", "subject": "quota", "value": "0", "reason": "x"}, 422, "concurrency"),
    ({"kind": "concurrency", "subject": "quota", "value": "many", "reason": "x"}, 422, "concurrency"),
    ({"kind": "concurrency", "subject": "quota", "value": "9" * 500, "reason": "x"}, 422, "concurrency"),
    ({"kind": "intake", "organization_id": "acme", "reason": "x"}, 422, "organization"),
    ({"kind": "drain", "subject": "00000000", "reason": "x"}, 404, "process"),
    ({"kind": "log_level", "subject": "0", "value": "loud", "reason": "x"}, 422, "level"),
    ({"kind": "gate", "subject": "http://nowhere/v1", "reason": "x"}, 404, "endpoint"),
    ({"kind": "everything", "reason": "x"}, 422, "kind"),
)
_NO_TEXTS: tuple[tuple[object, str], ...] = (
    ("a\0b", "holds the character NUL"),
    ("a" * 1_001, "has more than"),
    ([], "must be a string"),
)
_PAUSE: dict[str, object] = {"kind": "pause", "subject": "quota", "reason": "x"}
WRONG += tuple(
    (_PAUSE | {field: text}, 422, f"{field}: {advice}")
    for field in ("subject", "reason", "value", "organization_id")
    for text, advice in _NO_TEXTS
)


async def test_what_cannot_be_wanted_names_the_field(fleet: Fleet, database: Pool) -> None:
    """Each is refused with the field and the fix; nothing is in force, and the log of actions has the refusals."""
    for body, status, named in WRONG:
        for path in ("/effects", ""):
            problem = await fleet.post(path, body, status=status)
            assert named in problem["detail"], body
            assert problem["detail"].count(";") <= 1, f"{problem}: one mistake is told once"
    for kind, subject in (("pause", "quota"), ("intake", ""), ("gate", "x"), ("drain", "x")):
        ended = await fleet.post("/end", {"kind": kind, "subject": subject}, status=404)
        assert ended["code"] == "control_subject_not_found"
    assert await database.fetchval("SELECT count(*) FROM fleet_controls") == 0
    assert await database.fetchval("SELECT bool_and(outcome = 'refused') FROM operator_actions")


async def test_the_commands_do_the_same(fleet: Fleet, database: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Effects first, and only with consent; the same rows as by the API; `workers` shows what is in force."""
    run = commands(monkeypatch, **{**environment(fleet.settings), "COLUMNS": "200", "LOGNAME": "ann"})
    asked = ["pause", "generation", "--organization", "acme", "--for", "1h", "--reason", "why"]
    refused = await run(*asked, answer="n\n")
    assert refused.exit_code == 1
    assert "runs in line" in refused.stdout
    assert "Nothing was done. To do it without being asked, add --yes." in refused.stderr
    assert await database.fetchval("SELECT count(*) FROM fleet_controls") == 0
    for line in ("pause generation --organization acme --for 1h", "pause intake", "set concurrency quota 5 --for 30m"):
        done = await run(*line.split(), "--reason", "they asked", "--yes")
        assert done.exit_code == 0, done.output
    shown = (await run("workers")).stdout
    for part in ("pause generation for acme", "intake", "concurrency quota 5", "ann: they asked"):
        assert part in shown
    for line in ("resume generation --organization acme", "resume intake", "set concurrency quota default --reason x"):
        assert (await run(*line.split())).exit_code == 0
    assert (await run("resume", "intake")).exit_code == 1
    assert await database.fetchval("SELECT count(*) FROM fleet_controls") == 0
    faces = await database.fetch("SELECT DISTINCT face, actor FROM operator_actions")
    assert [tuple(one) for one in faces] == [("cli", "ann")]


async def test_a_pause_is_a_gauge(fleet: Fleet) -> None:
    """For all and for some are told apart, so that an alert about the fleet is not silent for one organization."""
    await fleet.post("", {"kind": "pause", "subject": "quota", "organization_id": "acme", "reason": "they asked"})
    await fleet.post("", {"kind": "pause", "subject": "generation", "reason": "a bad prompt"})
    async with fleet.http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    told = {line for line in lines if line.startswith("teamfit_paused{") and line.endswith(" 1.0")}
    assert told == {
        'teamfit_paused{scope="some",stage="quota"} 1.0',
        'teamfit_paused{scope="all",stage="generation"} 1.0',
    }
    assert 'teamfit_paused{scope="all",stage="intake"} 0.0' in lines
