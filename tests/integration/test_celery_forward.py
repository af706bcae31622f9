"""A real Celery worker forwards the old task's calls, its own broker and the pipeline's apart."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from infra.local.processes import free_port
from producers.celery_forward import forward_to_pipeline
from streams.jobs.events import JobRequested, parse_event
from streams.jobs.job_ids import job_id_for
from tests.conftest import Pool
from tests.stream_entries import entries_of
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
# Celery stands last in the path, so that what both need is the pipeline's.
APP = """
import os, sys
sys.path.append(os.environ["CELERY_PATH"])
from celery import Celery
from producers.celery_forward import forward_to_pipeline
app = Celery("old", broker=os.environ["OLD_BROKER"])
app.conf.broker_connection_retry_on_startup = True
"""
WORKER = (
    APP
    + """
forward_to_pipeline(app)
forward_to_pipeline(app, name="by_row", arguments=("job_id", "team_id", "organization_id"))
app.worker_main(["worker", "--pool", "solo", "-l", "INFO", "--without-mingle"])
"""
)
SEND = (
    APP
    + """
for line in sys.stdin:
    task_id, wish = line.rstrip("\\n").split(" ", 1)
    app.send_task("generate_custom_activities", args=["acme", "acme-team", wish], task_id=task_id)
app.send_task("generate_custom_activities", args=["acme", "acme-team"])
app.send_task("by_row", args=[os.environ["ROW"], "acme-team", "acme"])
"""
)


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with Celery, in the versions that the baseline runs with."""
    folder = tmp_path_factory.mktemp("celery")
    pins = re.findall(
        r"^(?:celery|kombu)==\S+", (ROOT / "infra/bench/celery_baseline/requirements.txt").read_text(), re.MULTILINE
    )
    uv = shutil.which("uv")
    command = [uv, "pip", "install"] if uv else [sys.executable, "-m", "pip", "install", "--no-compile"]
    done = subprocess.run(
        [*command, "--quiet", "--target", str(folder), *pins], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"Celery cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return str(folder)


@asynccontextmanager
async def relay(port: int, url: str) -> AsyncIterator[None]:
    """Have the server answer at this port too, until the block ends."""
    to = urlsplit(url)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65536):
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, into = await asyncio.open_connection(to.hostname, to.port)
        await asyncio.gather(pump(reader, into), pump(behind, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


def test_the_page_about_the_move_has_it() -> None:
    """Who follows it writes two lines."""
    page = (ROOT / "docs" / "deploying.md").read_text()
    assert f"from {forward_to_pipeline.__module__} import {forward_to_pipeline.__name__}" in page


@pytest.mark.timeout(300)  # installing may take a minute
async def test_every_call_of_the_old_task_is_one_job(
    celery: str, redis_url: str, database_url: str, database: Pool, tmp_path: Path
) -> None:
    """With the pipeline's broker away at first, 21 calls, one of them sent twice, are 20 jobs; a bad call is named.

    A call that gives a job's ID alone has its wish from the job's row.
    """
    row = uuid4()
    await database.execute(
        "INSERT INTO customization_jobs (job_id, organization_id, team_id, requirements, status) "
        "VALUES ($1, 'acme', 'acme-team', 'A wish of the row', 'pending')",
        row,
    )
    port, address = free_port(), urlsplit(redis_url)
    away = address._replace(netloc=f"127.0.0.1:{port}").geturl()
    variables = {
        **os.environ,
        "CELERY_PATH": celery,
        "PYTHONPATH": str(ROOT),
        "OLD_BROKER": redis_url,
        "PIPELINE_URL": away,
        "DATABASE_URL": database_url,
        "ROW": str(row),
    }
    task_ids = [str(uuid4()) for _ in range(20)]
    lines = "".join(f"{task_id} Wish {number}\n" for number, task_id in enumerate([*task_ids, task_ids[0]]))
    subprocess.run([sys.executable, "-c", SEND], env=variables, input=lines, text=True, check=True)
    log = tmp_path / "worker.log"
    with log.open("w") as output:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WORKER), env=variables, cwd=tmp_path, stdout=output, stderr=output
        )
    try:
        await wait_for(lambda: "Retry in" in log.read_text(), deadline_s=60, what="Celery to try again later")
        async with relay(port, redis_url):
            wanted = {str(row), *(str(job_id_for("acme", task_id)) for task_id in task_ids)}

            async def all_are_there() -> bool:
                return {fields[b"key"].decode() for fields in await entries_of(redis_url, "job-requests")} == wanted

            await wait_for(all_are_there, deadline_s=90, what="20 jobs and the row's")
            events = [parse_event(fields[b"event"]) for fields in await entries_of(redis_url, "job-requests")]
            assert all(isinstance(event, JobRequested) and event.source == "celery" for event in events)
            await wait_for(lambda: "requirements: missing" in log.read_text(), deadline_s=60, what="the bad call")
    finally:
        worker.terminate()
        async with asyncio.timeout(60):
            await worker.wait()
