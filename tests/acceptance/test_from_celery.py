"""Every line of the tables of docs/from-celery.md is tried on a running pipeline, as the document has it."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import aiohttp
import pytest

from infra.api.console import create_app
from infra.console.desk import COOKIE
from infra.console.sessions import Sessions
from infra.local.environment import environment
from infra.local.organizations import BIRCH, ELM
from infra.local.processes import free_port
from infra.local.stack import Stack
from infra.postgres import Database
from tests.acceptance.customer import Customer, hand_written
from tests.api_server import serving_app
from tests.command_processes import CommandProcesses
from tests.conftest import run_apart
from tests.waiting import wait_for

_DOCUMENT: Final = Path(__file__).parents[2] / "docs/from-celery.md"
_SPAN: Final = re.compile(r"`([^`]+)`|\*([^*]+)\*|\[[^\]]+\]\(([^)]+)\)")
_WHY: Final = ("--because", "a test", "--yes")
_READY_S: Final = 60

# What runs to its end: its arguments, with what was made before in braces, and a word of what it prints.
_COMMANDS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "teamfit schedule tasks": (("schedule", "tasks"), "counts.again"),
    "teamfit schedule run TASK": (("schedule", "run", "counts.again"), " "),
    "teamfit schedule list": (("schedule", "list"), "scheduled,"),
    "teamfit workers": (("workers",), "generation"),
    "teamfit streams show TOPIC": (("streams", "show", "job-events"), " shown."),
    "teamfit streams show TOPIC --group GROUP": (("streams", "show", "job-requests", "--group", "quota"), " shown."),
    "teamfit lag": (("lag",), "job-requests"),
    "teamfit job show JOB": (("job", "show", "{done}"), "completed"),
    "teamfit job show ID": (("job", "show", "{failed}"), "failed"),
    "teamfit jobs list": (("jobs", "list", "--words", "crosswords", "--json"), "{done}"),
    "teamfit top": (("top", "--once"), "generation"),
    "teamfit job cancel ID --because …": (("job", "cancel", "{waiting}", *_WHY), "cancelled"),
    "teamfit llm endpoints": (("llm", "endpoints"), "call"),
    "teamfit llm gate show": (("llm", "gate", "show"), "gate"),
    "teamfit pause STAGE": (("pause", "generation", "--organization", ELM.id, "--for", "1m", *_WHY), "In force"),
    "resume": (("resume", "quota", "--organization", ELM.id), "Ended"),
    "teamfit set concurrency STAGE N": (("set", "concurrency", "webhooks", "2", "--for", "1m", *_WHY), "In force"),
    "teamfit drain PROCESS": (("drain", "{process}", *_WHY), "In force"),
    "teamfit cancel plan": (("cancel", "plan", "--words", "constancy"), "Jobs: 1"),
    "teamfit cancel apply": (("cancel", "apply", "{plan}", *_WHY), "1 of 1 jobs are cancelled"),
    "teamfit migrate": (("migrate",), "newest schema"),
    "teamfit failed groups": (("failed", "groups"), "generation"),
    "teamfit failed list": (("failed", "list"), "{failed}"),
    "teamfit replay plan": (("replay", "plan", "--job", "{failed}"), "1"),
}
# What runs until it is stopped.
_SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "teamfit worker STAGE…": ("worker", "quota", "failures"),
    "teamfit worker all": ("worker", "all"),
    "teamfit worker schedule": ("worker", "schedule"),
    "teamfit console": ("console",),
}
# Each page's address, and a word that it has.
_PAGES: Final[Mapping[str, tuple[str, str]]] = {
    "Overview": ("/", "90 days"),
    "Workers": ("/workers", "generation"),
    "Streams": ("/streams", "job-requests"),
    "Jobs": ("/jobs", "{done}"),
    "Job": ("/jobs/{done}", "Activities"),
    "Failed events": ("/failed", "{failed}"),
    "Schedule": ("/schedule", "counts.again"),
    "LLM": ("/llm", "calls"),
}
_ROUTES: Final = {
    "/readyz": "test_a_worker_says_that_it_is_ready_and_what_it_has_done",
    "/metrics": "test_a_worker_says_that_it_is_ready_and_what_it_has_done",
    "GET /api/jobs/{id}/events": "test_the_ways_in_and_out_of_a_job",
    "POST /api/activities/generate-custom": "test_the_ways_in_and_out_of_a_job",
    "XADD": "test_the_ways_in_and_out_of_a_job",
    "teamfit --install-completion": "test_completion_is_installed_for_the_shell_that_asks",
}
# Lines that name nothing to run or to open, and why.
_WITHOUT: Final = {
    "none": "there is nothing in the place of these commands",
    "always; viewers beside operators": "tests/integration/console/test_routes.py signs everybody in",
    "Postgres": "tests/integration/test_overview.py restarts",
}


def _lines() -> dict[str, set[str]]:
    """Return what each line of the two tables names of ours."""
    text = _DOCUMENT.read_text(encoding="utf-8")
    tables = text[text.index("## Commands") : text.index("## Code that called the task")]
    rows = [line.strip().strip("|").split(" | ") for line in tables.splitlines() if line.startswith("| ")]
    ours = [row[-1].strip() for row in rows if row[-1].strip() not in {"here", "---"}]
    return {line: {next(filter(None, found)) for found in _SPAN.findall(line)} for line in ours}


def test_every_line_of_the_tables_is_tried_or_says_why_not() -> None:
    """What a line names is below, or a document that exists; and nothing is tried that no line names."""
    lines = _lines()
    tried = {*_COMMANDS, *_SERVERS, *_PAGES, *_ROUTES}
    named = set().union(*lines.values())
    documents = {one for one in named if (_DOCUMENT.parent / one.partition("#")[0]).is_file()}
    assert named - documents == tried
    assert {line for line, spans in lines.items() if not spans} == set(_WITHOUT)
    assert set(_ROUTES.values()) <= set(globals())


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The pipeline with what the commands are tried on, and one worker more, which is drained."""

    stack: Stack
    commands: CommandProcesses
    folder: Path
    made: dict[str, str]

    def run(self, *arguments: str) -> str:
        """Run a command to its end, which must be a good one; return what it has printed."""
        filled = [one.format(**self.made) for one in arguments]
        ended = self.commands.run(filled, folder=self.folder, environment=environment(self.stack.settings))
        assert ended.code == 0, (filled, ended.output, ended.errors)
        return ended.output + ended.errors


@contextmanager
def _started(stack: Stack, folder: Path, arguments: tuple[str, ...], **variables: str) -> Iterator[Any]:
    """Start what runs until it is stopped, and wait until it works; it must end well when it is asked to."""
    said, ready = folder / "said", folder / "ready"
    ready.unlink(missing_ok=True)
    more = ("--ready-file", str(ready)) if arguments[0] == "worker" else ("--port", str(free_port()))
    with said.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", *arguments, *more],
            env={**environment(stack.settings), **variables, "PYTHONUNBUFFERED": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        works = wait_for(
            lambda: ready.exists() or "http://" in said.read_text() or process.poll() is not None,
            deadline_s=_READY_S,
            what=f"{arguments} to be ready",
        )
        run_apart(works)
        assert process.poll() is None, said.read_text()
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=_READY_S) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def fleet(
    stack: Stack, command_processes: CommandProcesses, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Fleet]:
    """A job that is done, one that failed, and two that wait, since generation is paused."""
    fleet = _Fleet(stack, command_processes, tmp_path_factory.mktemp("celery"), {})
    with _started(stack, fleet.folder, ("worker", "all")) as worker:
        processes = json.loads(fleet.run("workers", "--json"))
        known = [one["process"] for one in processes["processes"]]
        fleet.made["process"] = next(one["process"] for one in known if one["pid"] == worker.pid)
        run_apart(_make_jobs(fleet))
        yield fleet
        fleet.run("resume", "generation")


async def _make_jobs(fleet: _Fleet) -> None:
    control = str(fleet.stack.settings.openai_base_url).removesuffix("/v1") + "/control"
    async with aiohttp.ClientSession(fleet.stack.api_url) as http:
        customer = Customer(fleet.stack, http)

        async def ask(requirements: str) -> str:
            status, document = await customer.post(requirements=requirements)
            assert status == 202, document
            return str(document["job_id"])

        async with http.put(control, json={"mode": "refusal", "containing": "ferrets"}) as answer:
            assert answer.ok
        fleet.made["done"], fleet.made["failed"] = await ask("An hour of crosswords"), await ask("Ferrets, or ferrets")
        for job, status in (("done", "completed"), ("failed", "failed")):
            assert (await customer.ended_job(fleet.made[job]))["status"] == status
        async with http.delete(control) as answer:
            assert answer.ok
        for stage, *whose in (("generation",), ("quota", "--organization", ELM.id)):
            await asyncio.to_thread(fleet.run, "pause", stage, *whose, *_WHY)
        fleet.made["waiting"] = await ask("Something calm")
        wait = {word: await ask(f"Something with {word}") for word in ("patience", "constancy")}

        async def seen() -> bool:
            listed = await asyncio.to_thread(fleet.run, "jobs", "list", "--status", "pending", "--json")
            return all(job in listed for job in (*wait.values(), fleet.made["waiting"]))

        await wait_for(seen, deadline_s=_READY_S, what="the jobs that wait to be found")
    plan = await asyncio.to_thread(fleet.run, "cancel", "plan", "--words", "patience", "--json")
    fleet.made["plan"] = json.loads(plan)["id"]


@pytest.mark.parametrize("line", _COMMANDS)
def test_a_command_of_the_tables_runs_and_says_something_of_use(fleet: _Fleet, line: str) -> None:
    """With the placeholders filled it ends with 0, and prints what somebody looks for there."""
    arguments, says = _COMMANDS[line]
    if line != "resume":
        assert line.split()[1 : 1 + len(arguments)][0] == arguments[0]
    assert says.format(**fleet.made) in fleet.run(*arguments)


@pytest.mark.parametrize("line", _SERVERS)
def test_a_server_of_the_tables_starts_and_stops(stack: Stack, tmp_path: Path, line: str) -> None:
    """It works, and ends well when it is asked to."""
    with _started(stack, tmp_path, _SERVERS[line]) as process:
        assert process.poll() is None


@asynccontextmanager
async def _operator(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    database = Database(stack.settings.database_url, size=1)
    try:
        secret = (await Sessions(database).begin("ann", "operator")).secret
        async with serving_app(create_app(stack.settings), stack.settings) as console:
            console.headers["Cookie"] = f"{COOKIE}={secret}"
            yield console
    finally:
        await database.close()


async def test_every_page_of_the_tables_opens(fleet: _Fleet) -> None:
    """And shows what was made before."""
    async with _operator(fleet.stack) as console:
        for name, (path, says) in _PAGES.items():
            async with console.get(path.format(**fleet.made)) as answer:
                assert (answer.status, says.format(**fleet.made) in await answer.text()) == (200, True), name


async def test_a_worker_says_that_it_is_ready_and_what_it_has_done(stack: Stack, tmp_path: Path) -> None:
    """Each has `/readyz` and `/metrics` at its port."""
    port = free_port()
    with _started(stack, tmp_path, ("worker", "webhooks"), TEAMFIT_WORKER_PORT=str(port)):
        await _look(port)


async def _look(port: int) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as worker:
        for path, says in (("/readyz", "ready"), ("/metrics", "teamfit_")):
            async with worker.get(path) as answer:
                assert (answer.status, says in await answer.text()) == (200, True), path


async def test_the_ways_in_and_out_of_a_job(fleet: _Fleet, customer: Customer) -> None:
    """A request and a plain XADD begin one; its events are followed over HTTP."""
    status, _ = await customer.post(requirements="Something calm")
    assert status == 202
    job_id = str(uuid4())
    await customer.xadd("key", job_id, "event", hand_written(job_id, BIRCH.id, BIRCH.team.id))
    headers = {"Authorization": f"Bearer {fleet.stack.token(BIRCH.id)}"}
    async with customer.http.get(f"/api/jobs/{fleet.made['done']}/events", headers=headers) as answer:
        assert answer.status == 200
        assert b"completed" in await answer.content.readuntil(b"completed")


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    """In its own folder, from which the shell reads it."""
    command = f"{sys.executable} -m infra.cli --install-completion; exit $?"
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "completion installed" in done.stdout.decode()
