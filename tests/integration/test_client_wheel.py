"""The client's wheel: what is in it, and its README's examples where nothing else of ours is."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from uuid import UUID

import pytest

from producers.blocking import BlockingJobRequests
from producers.client import InvalidArgument, Request, SubmitFailed
from streams.jobs.events import JobCancelRequested, JobRequested, parse_event
from streams.jobs.job_ids import job_id_for
from tests.api_server import UNUSED_URL
from tests.integration.test_wheels import ROOT, Environment, Wheel, build, environment_with
from tests.stream_entries import entries_of

_FOLDER = ROOT / "producers" / "wheel"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The client's wheel."""
    return build(_FOLDER, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def service(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An upstream service's environment."""
    return environment_with(wheel, tmp_path_factory.mktemp("service"))


def test_it_is_one_package_that_imports_what_it_requires(wheel: Wheel) -> None:
    """No top-level package of ours but its own; beside Python's, no module imports what pip would not bring."""
    assert {name.partition("/")[0] for name in wheel.names} == {"teamfit_client"}
    assert "teamfit_client/py.typed" in wheel.names
    imported = set()
    with zipfile.ZipFile(wheel.path) as archive:
        for name in wheel.names:
            for node in ast.walk(ast.parse(archive.read(name))):
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    imported.add((node.module or "").partition(".")[0])
                elif isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
    theirs = {"hiredis", "pydantic", "pydantic_core", "redis"}
    for_the_type_checker_alone = {"faust"}
    assert imported - sys.stdlib_module_names == {"teamfit_client"} | theirs | for_the_type_checker_alone


def test_it_describes_itself(wheel: Wheel) -> None:
    """It has its own README, licence and requirements: two, and no older than the pipeline is tested with."""
    about = Parser().parsestr(wheel.described("METADATA"))
    assert about["Name"] == "teamfit-client"
    assert about.get_payload() == (_FOLDER / "README.md").read_text()
    assert wheel.described("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    required = about.get_all("Requires-Dist", [])
    assert sorted(required) == ["pydantic>=2.9", "redis[hiredis]>=6.2"]
    assert all(f'"{one}"' in (ROOT / "pyproject.toml").read_text() for one in required)


@pytest.mark.timeout(300)  # installing may take a minute
async def test_the_readmes_examples_work_where_nothing_else_is(
    service: Environment, redis_url: str, tmp_path: Path
) -> None:
    """Requests are sent, by blocking code and by asynchronous code, and one is withdrawn; no package of ours leaks."""
    readme = (_FOLDER / "README.md").read_text()
    said = []
    for number, example in enumerate(re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)):
        program = tmp_path / f"example{number}.py"
        leaks = (
            "import importlib.util\nassert not any(map(importlib.util.find_spec, ('infra', 'streams', 'producers')))\n"
        )
        program.write_text(example + leaks)
        done = subprocess.run(
            [service.programs / "python", program],
            env={"PATH": os.environ["PATH"], "BROKER_URL": redis_url},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said += done.stdout.split()
    events = [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, "job-requests")]
    jobs = [job_id_for("acme", key) for key in ("offsite-2031", "puzzle-0", "puzzle-1", "puzzle-2")]
    assert [event.job_id for event in events if isinstance(event, JobRequested)] == jobs == [UUID(one) for one in said]
    assert [event.job_id for event in events if isinstance(event, JobCancelRequested)] == [jobs[1]]
    assert {event.source for event in events} == {"hr-service"}


async def test_without_asyncio_the_errors_are_the_same(redis_url: str) -> None:
    """Wrong arguments, a wrong URL and a broker that is away raise what the asynchronous client raises."""
    with BlockingJobRequests.connect(redis_url) as requests:
        with pytest.raises(InvalidArgument, match="team_id"):
            requests.submit(organization_id="acme", team_id="", requirements="walk")
        with pytest.raises(InvalidArgument, match="request 2 of 2"):
            requests.submit_many([Request(organization_id="acme", team_id="t1", requirements=one) for one in ("a", "")])
    with pytest.raises(ValueError, match="not Redis"), BlockingJobRequests.connect("kafka://localhost"):
        pass
    with BlockingJobRequests.connect(UNUSED_URL) as requests, pytest.raises(SubmitFailed) as failed:
        requests.submit(organization_id="acme", team_id="t1", requirements="walk", idempotency_key="k")
    assert failed.value.job_ids == [job_id_for("acme", "k")]
    assert await entries_of(redis_url, "job-requests") == []
