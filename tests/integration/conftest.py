"""What tests of the pipeline's parts on real servers share."""

from collections.abc import AsyncIterator

import pytest

from infra.postgres import Database
from tests.commands import Run, commands


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[Database]:
    """The pipeline's own view of the test's database."""
    database = Database(database_url, size=8)
    yield database
    await database.close()


@pytest.fixture
def teamfit(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with this test's servers, as the operator `ann` on a wide terminal."""
    return commands(monkeypatch, DATABASE_URL=database_url, BROKER_URL=redis_url, LOGNAME="ann", COLUMNS="200")
