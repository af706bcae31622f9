"""The client's wheel: what is in it, and its README's examples where nothing else of ours is."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from uuid import UUID

import pytest

import producers.client
from consumers.projection.handlers import Projection
from infra.postgres import Database
from producers.blocking import BlockingJobRequests
from producers.client import InvalidArgument, Request, SubmitFailed
from streams.jobs.events import JobCancelRequested, JobRequested, parse_event
from streams.jobs.job_ids import job_id_for
from tests.api_server import UNUSED_URL, api_settings, bearer, serving
from tests.facts import completed, started
from tests.integration.test_wheels import ROOT, Environment, Wheel, build, environment_with
from tests.stream_entries import entries_of
from tests.waiting import wait_for

_FOLDER = ROOT / "producers" / "wheel"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The client's wheel."""
    return build(_FOLDER, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def service(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An upstream service's environment."""
    return environment_with(wheel, folder=tmp_path_factory.mktemp("service"))


def _parsed(source: bytes) -> ast.Module:
    """Return a module's tree; once more where Python 3.11.7 miscounts its depth (gh-106905)."""
    try:
        return ast.parse(source)
    except SystemError:
        return ast.parse(source)


def test_it_is_one_package_that_imports_what_it_requires(wheel: Wheel) -> None:
    """No top-level package of ours but its own; beside Python's, no module imports what pip would not bring."""
    assert {name.partition("/")[0] for name in wheel.names} == {"teamfit_client"}
    assert "teamfit_client/py.typed" in wheel.names
    imported = set()
    with zipfile.ZipFile(wheel.path) as archive:
        for name in wheel.names:
            for node in ast.walk(_parsed(archive.read(name))):
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    imported.add((node.module or "").partition(".")[0])
                elif isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
    theirs = {"hiredis", "pydantic", "pydantic_core", "redis"}
    an_extra = {"aiokafka"}
    for_the_type_checker_alone = {"faust"}
    assert imported - sys.stdlib_module_names == {"teamfit_client"} | theirs | an_extra | for_the_type_checker_alone


def test_it_describes_itself(wheel: Wheel) -> None:
    """It has its own README, licence and requirements: two, and no older than the pipeline is tested with."""
    about = Parser().parsestr(wheel.described("METADATA"))
    assert about["Name"] == "teamfit-client"
    assert about.get_payload() == (_FOLDER / "README.md").read_text()
    assert wheel.described("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    required = about.get_all("Requires-Dist", [])
    assert sorted(required) == ["aiokafka>=0.12; extra == 'kafka'", "pydantic>=2.9", "redis[hiredis]>=6.2"]
    assert all(f'"{one.partition(";")[0]}"' in (ROOT / "pyproject.toml").read_text() for one in required)


def examples(folder: Path) -> list[Path]:
    """The README's programs, in order, each with a look for packages of ours that leak."""
    found = re.findall(r"^```python\n(.*?)^```", (_FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    leaks = "import importlib.util\nassert not any(map(importlib.util.find_spec, ('infra', 'streams', 'producers')))\n"
    for number, example in enumerate(found):
        (folder / f"example{number}.py").write_text(example + leaks)
    return sorted(folder.glob("example*.py"))


async def run(service: Environment, program: Path, **environment: str) -> list[str]:
    """Run a program where nothing of ours is but the wheel; return its lines."""
    process = await asyncio.create_subprocess_exec(
        *(service.programs / "python", program),
        env={"PATH": os.environ["PATH"], **environment},
        cwd=program.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines()


@pytest.mark.timeout(300)  # installing may take a minute
async def test_it_has_every_name_of_the_client(service: Environment, tmp_path: Path) -> None:
    """Whatever it raises and returns can be named from where it stands; one error had to be imported from elsewhere."""
    program = tmp_path / "names.py"
    program.write_text(
        "import teamfit_client\nfor one in teamfit_client.__all__:\n    print(one, one in dir(teamfit_client))"
    )
    names = {*producers.client.__all__, "BlockingJobRequests"}
    assert sorted(await run(service, program)) == sorted(f"{one} True" for one in names)


@pytest.mark.timeout(300)  # installing may take a minute
async def test_the_readmes_examples_work_where_nothing_else_is(
    service: Environment, redis_url: str, tmp_path: Path
) -> None:
    """Requests are sent, by blocking code and by asynchronous code, and one is withdrawn; no package of ours leaks."""
    sending, asynchronous, _ = examples(tmp_path)
    said = [" ".join(await run(service, one, BROKER_URL=redis_url)) for one in (sending, asynchronous)]
    events = [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, "job-requests")]
    jobs = [job_id_for("acme", key) for key in ("offsite-2031", "puzzle-0", "puzzle-1", "puzzle-2")]
    told = [UUID(one) for one in " ".join(said).split()]
    assert [event.job_id for event in events if isinstance(event, JobRequested)] == jobs == told
    assert [event.job_id for event in events if isinstance(event, JobCancelRequested)] == [jobs[1]]
    assert {event.source for event in events} == {"hr-service"}


@pytest.mark.timeout(300)  # installing may take a minute
async def test_the_readmes_example_follows_a_job_to_its_end(
    service: Environment, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Over a real API, while the pipeline's part is played fact by fact."""
    *_, following = examples(tmp_path)
    opened = Database(database_url, size=1)
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as http:
        program = asyncio.create_task(
            run(
                service,
                following,
                BROKER_URL=redis_url,
                TEAMFIT_URL=str(http._base_url),
                TEAMFIT_TOKEN=bearer()["Authorization"].removeprefix("Bearer "),
            )
        )
        ((entry),) = await wait_for(lambda: entries_of(redis_url, "job-requests"), deadline_s=60, what="the request")
        request = parse_event(entry[b"event"])
        assert isinstance(request, JobRequested)
        await Projection(opened).project([request])
        await Projection(opened).project([started(job=request.job_id), completed(job=request.job_id)])
        assert await program == ["requested", "started", "completed", "completed"]
    await opened.close()


async def test_without_asyncio_the_errors_are_the_same(redis_url: str) -> None:
    """Wrong arguments, a wrong URL and a broker that is away raise what the asynchronous client raises."""
    with BlockingJobRequests.connect(redis_url) as requests:
        with pytest.raises(InvalidArgument, match="team_id"):
            requests.submit(organization_id="acme", team_id="", requirements="walk")
        with pytest.raises(InvalidArgument, match="request 2 of 2"):
            requests.submit_many([Request(organization_id="acme", team_id="t1", requirements=one) for one in ("a", "")])
    with pytest.raises(ValueError, match="over HTTP"), BlockingJobRequests.connect("redis://localhost?cluster=true"):
        pass
    with BlockingJobRequests.connect(UNUSED_URL) as requests, pytest.raises(SubmitFailed) as failed:
        requests.submit(organization_id="acme", team_id="t1", requirements="walk", idempotency_key="k")
    assert failed.value.job_ids == [job_id_for("acme", "k")]
    assert await entries_of(redis_url, "job-requests") == []
