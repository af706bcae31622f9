"""`teamfit verify` and `teamfit projection rebuild` as an operator types them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import pytest

from tests.command_processes import CommandProcesses
from tests.conftest import Pool
from tests.integration.verify.conftest import Jobs

Teamfit: TypeAlias = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def teamfit(command_processes: CommandProcesses, tmp_path: Path) -> Teamfit:
    """Run a command in an empty folder; return its exit code and what it printed."""

    async def run(*arguments: str, database_url: str) -> tuple[int, str, str]:
        environment = {"DATABASE_URL": database_url}
        ended = await asyncio.to_thread(command_processes.run, arguments, folder=tmp_path, environment=environment)
        return ended.code, ended.output, ended.errors

    return run


async def test_verify_says_that_all_is_well(jobs: Jobs, database_url: str, teamfit: Teamfit) -> None:
    """Code 0, and a table with each invariant and its count."""
    code, printed, complaints = await teamfit("verify", "--settled", "--llm-calls", "3", database_url=database_url)
    assert (code, complaints) == (0, "")
    assert "charged = completed" in printed
    assert "4 accepted = 4 ended + 0 live + 0 lost" in printed
    assert "All 28 invariants hold." in printed


async def test_verify_names_what_is_wrong_and_what_to_do(
    jobs: Jobs, database: Pool, database_url: str, teamfit: Teamfit
) -> None:
    """Code 1, the ID, and the next step; the same in JSON."""
    await database.execute("DELETE FROM customized_activities WHERE job_id = $1", jobs.done.job_id)
    code, printed, _ = await teamfit("verify", database_url=database_url)
    assert code == 1
    assert f"{jobs.done.job_id} run 1 completed, has no activities" in printed
    assert "What to do:" in printed
    code, printed, _ = await teamfit("verify", "--json", database_url=database_url)
    document = json.loads(printed)
    assert (code, document["ok"]) == (1, False)
    (wrong,) = [one for one in document["invariants"] if one["violations"]]
    assert (wrong["name"], wrong["checked"]) == ("three activities", 2)
    assert str(jobs.done.job_id) in wrong["examples"][0]


async def test_rebuild_looks_first_and_repairs_then(
    jobs: Jobs, database: Pool, database_url: str, teamfit: Teamfit
) -> None:
    """A dry run reports with code 1; the rebuild repairs with code 0; then there is nothing to do."""
    await database.execute("DELETE FROM customization_jobs WHERE job_id = $1", jobs.done.job_id)
    code, printed, _ = await teamfit("projection", "rebuild", "--dry-run", database_url=database_url)
    assert code == 1
    assert f"{jobs.done.job_id} has no row" in printed
    assert "Nothing was changed." in printed
    code, printed, _ = await teamfit("projection", "rebuild", database_url=database_url)
    assert code == 0
    assert "1 rows were repaired." in printed
    code, printed, _ = await teamfit("projection", "rebuild", "--json", database_url=database_url)
    document = json.loads(printed)
    assert (code, document["agrees"], document["repaired"]) == (0, True, 0)


async def test_a_gap_is_reported_and_cannot_be_repaired(
    jobs: Jobs, database: Pool, database_url: str, teamfit: Teamfit
) -> None:
    """Code 1 after a rebuild: somebody has to look for the events."""
    unfounded = uuid4()
    await database.execute("INSERT INTO customization_jobs (job_id, status) VALUES ($1, 'completed')", unfounded)
    code, printed, _ = await teamfit("projection", "rebuild", database_url=database_url)
    assert code == 1
    assert f"{unfounded} no events" in printed


async def test_a_database_that_is_not_ours_is_explained(empty_database_url: str, teamfit: Teamfit) -> None:
    """No traceback, but what to check."""
    for command in (("verify",), ("projection", "rebuild")):
        code, printed, complaints = await teamfit(*command, database_url=empty_database_url)
        assert (code, printed) == (1, "")
        assert "teamfit migrate" in complaints
        assert "Traceback" not in complaints


async def test_a_server_that_is_away_is_explained(teamfit: Teamfit) -> None:
    """The same when nobody listens."""
    code, _, complaints = await teamfit("verify", database_url="postgresql://teamfit@127.0.0.1:1/teamfit")
    assert code == 1
    assert "DATABASE_URL" in complaints
    assert "Traceback" not in complaints
