"""`teamfit up`: another terminal works by pasting what it prints, and what ends by itself is started again."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.local.organizations import ACME
from infra.local.processes import free_port
from tests.waiting import wait_for

_TEAMFIT = [sys.executable, "-m", "infra.cli"]
_START_S = 60.0
_CLIENT = """
import asyncio, os
from producers.client import JobRequests
async def main():
    async with JobRequests.connect(os.environ["BROKER_URL"]) as requests:
        print(await requests.submit(organization_id="acme", team_id="acme-platform", requirements="puzzles"))
asyncio.run(main())
"""


@dataclass
class Up:
    """A running `teamfit up`."""

    process: "subprocess.Popen[bytes]"
    output: Path

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.output.read_text()

    def part(self, words: str) -> psutil.Process | None:
        """Return the part whose command has these words, if it runs. Its watchdog is another process."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if words in " ".join(child.cmdline()) and child.cmdline()[0] != "/bin/sh":
                    return child
            except (psutil.NoSuchProcess, IndexError):
                continue
        return None

    async def says(self, what: str) -> None:
        """Wait until it has said something."""
        await wait_for(
            lambda: what in self.said or self.process.poll() is not None,
            deadline_s=_START_S,
            what=f"{what!r} to be said",
        )
        assert what in self.said, self.said

    async def elsewhere(self, script: str) -> str:
        """Run a shell's script in another terminal, after the line that is to be pasted there."""
        (paste,) = [line for line in self.said.splitlines() if line.startswith("export ")]
        done = subprocess.run(
            ["/bin/sh", "-ec", f"{paste}\n{script}"],
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def _running(*options: str) -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    output = folder / "output"
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [*_TEAMFIT, "up", "--port", str(free_port()), "--llm-latency", "0", *options],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        yield Up(process, output)
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """A pipeline that tests leave running, whatever they end of it."""
    with _running() as one:
        yield one


@pytest.fixture
def mortal() -> Iterator[Up]:
    """One of the test's own, that it may end."""
    with _running("--one-worker") as one:
        yield one


async def test_every_command_works_in_another_terminal_by_pasting(up: Up) -> None:
    """The line of exports is all that lag, failed, job, verify, an operator's token and the client need."""
    await up.says("Ctrl-C stops everything.")
    teamfit = re.findall(r"^(\S*teamfit) lag$", up.said, re.MULTILINE)[0]
    teamfit = teamfit if Path(teamfit).exists() else f"{sys.executable} -m infra.cli"
    job_id = (await up.elsewhere(f"{sys.executable} - <<'END'{_CLIENT}END")).strip()

    await up.elsewhere(f"until {teamfit} job show {job_id} | grep -q completed; do sleep 1; done")
    lag = json.loads(await up.elsewhere(f"{teamfit} lag --json"))
    assert {group["group"] for topic in lag for group in topic["groups"]} >= {"quota", "generation", "projection"}
    assert json.loads(await up.elsewhere(f"{teamfit} failed list --json")) is not None
    assert "invariants hold" in await up.elsewhere(f"{teamfit} verify")
    assert (await up.elsewhere(f"{teamfit} llm hold show")) is not None
    (operators,) = re.findall(r"^\S*teamfit (token .* --scope operator)", up.said, re.MULTILINE)
    assert f"--organization {ACME.id}" in operators
    token = (await up.elsewhere(f"{teamfit} {operators}")).strip()
    address = re.findall(r"^API +(\S+)", up.said, re.MULTILINE)[0]
    headers = f"-H 'Authorization: Bearer {token}'"
    if shutil.which("curl"):
        assert json.loads(await up.elsewhere(f"curl -sSf {address}/api/ops/failed {headers}")) is not None


async def test_what_ends_by_itself_is_started_again(up: Up) -> None:
    """Whichever part it is: that is said, nothing else ends, and jobs complete as before."""
    await up.says("Ctrl-C stops everything.")
    parts = {
        "quota": "worker quota",
        "generation": "worker generation",
        "api": "infra.cli api",
        "llm": "infra.local.llm",
        "web": "infra.local.web",
        "valkey": "valkey",
        "postgres": "postgres -D",
    }
    for name, words in parts.items():
        part = up.part(words)
        assert part is not None, name
        part.kill()
        await up.says(f"{name} was ended by SIGKILL; starting it again")
        await up.says(f"{name} runs again")
        again = up.part(words)
        assert again is not None
        assert again.pid != part.pid
    assert up.process.poll() is None
    job_id = (await up.elsewhere(f"{sys.executable} - <<'END'{_CLIENT}END")).strip()
    await up.elsewhere(f"until {sys.executable} -m infra.cli job show {job_id} | grep -q completed; do sleep 1; done")


async def test_what_ends_again_and_again_ends_the_whole(mortal: Up) -> None:
    """After three starts in vain it is said which part it was, with the last lines of its log."""
    await mortal.says("Ctrl-C stops everything.")
    seen: set[int] = set()

    async def ended() -> bool:
        part = mortal.part("worker all") if mortal.process.poll() is None else None
        if part is not None and part.pid not in seen:
            seen.add(part.pid)
            part.kill()
        return mortal.process.poll() is not None

    await wait_for(ended, deadline_s=2 * _START_S, what="it to end")
    assert mortal.process.returncode == 1, mortal.said
    assert len(seen) == 4
    assert mortal.said.count("starting it again") == 3
    assert re.search(r"teamfit: all ended soon after each of 3 starts.*; the end of \S+all.log:\n", mortal.said)
    assert "Traceback" not in mortal.said.split("starting it again")[-1].split("the end of")[0]
