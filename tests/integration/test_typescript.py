"""A TypeScript client that is generated from docs/openapi.json compiles strictly and runs a job's life in Node."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumers.projection.handlers import Projection
from infra.api.openapi_file import FILE
from infra.postgres import Database
from streams.jobs.events import JobId, JobRequested, parse_event
from tests.api_server import api_settings, bearer, serving
from tests.conftest import Pool
from tests.facts import completed, started
from tests.organizations import add_organizations
from tests.stream_entries import entries_of
from tests.waiting import wait_for

PAGE = FILE.with_name("front-ends.md")
FILES = Path(__file__).with_name("typescript")
_OLDEST_NODE = 20
COMMAND = "npx openapi-typescript docs/openapi.json -o api.d.ts"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example, compiled against the generated types."""
    if missing := [name for name in ("node", "npm", "npx") if shutil.which(name) is None]:
        pytest.skip(f"no {missing[0]} on this machine; install Node {_OLDEST_NODE} or later to have this test run")
    asked = ("node", "--version")
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < _OLDEST_NODE:
        pytest.skip(f"Node {version.strip()} is too old; install {_OLDEST_NODE} or later to have this test run")
    folder = tmp_path_factory.mktemp("typescript")
    shutil.copytree(FILES, folder, dirs_exist_ok=True)
    install = ("npm", "install", "--no-audit", "--no-fund", "--silent", "--prefer-offline")
    if subprocess.run(install, cwd=folder, check=False, capture_output=True).returncode:
        pytest.skip("npm cannot install openapi-typescript and openapi-fetch; is the registry reachable?")
    assert COMMAND in PAGE.read_text()
    generate = COMMAND.replace("docs/openapi.json", str(FILE)).split()
    for command in (generate, ["npx", "tsc", "--project", "."]):
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
async def projection(database_url: str) -> AsyncIterator[Projection]:
    """What the pipeline's read model is made by."""
    opened = Database(database_url, size=1)
    yield Projection(opened)
    await opened.close()


@pytest.mark.timeout(300)  # npm may take a minute
async def test_the_example_follows_a_job_from_the_wish_to_the_end(
    client: Path, database: Pool, database_url: str, redis_url: str, projection: Projection
) -> None:
    """It asks, listens with a ticket, reads the end, cancels another job, and lists its jobs."""
    await add_organizations(database)
    token = bearer()["Authorization"].removeprefix("Bearer ")
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as http:
        process = await asyncio.create_subprocess_exec(
            *("node", "life.js"),
            cwd=client,
            env={
                **os.environ,
                "API_URL": str(http._base_url).rstrip("/"),
                "API_TOKEN": token,
                "API_TEAM": "acme-team",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        # The pipeline's part, played fact by fact.
        ((entry),) = await wait_for(lambda: entries_of(redis_url, "job-requests"), deadline_s=60, what="the wish")
        request = parse_event(entry[b"event"])
        assert isinstance(request, JobRequested)
        job = JobId(request.job_id)
        await projection.project([request])
        await projection.project([started(job=job), completed(job=job)])
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    assert output.decode().splitlines() == [
        f"asked {job}",
        *("event requested", "event started", "event completed"),
        "status completed ",
        "other cancelled",
        f"list {job}",
    ]
