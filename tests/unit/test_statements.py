"""Statements of `.sql` files are sent without asking first what they are given."""

import subprocess
import sys
from typing import Any

import pytest

from infra.statements import Statements
from streams.jobs.stages import STAGES

_ADAPTERS = """
import gc, importlib, sys
from aiosql.queries import Queries
importlib.import_module(sys.argv[1])
print(*{type(one.driver_adapter).__qualname__ for one in gc.get_objects() if isinstance(one, Queries)})
"""


@pytest.mark.parametrize("module", [*(stage.module for stage in STAGES), "infra.api.app"])
def test_every_process_sends_all_its_statements_through_ours(module: str) -> None:
    """A module that reads its statements before ours is registered would send them the slow way."""
    done = subprocess.run([sys.executable, "-c", _ADAPTERS, module], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"Statements"}


class _Connection:
    """Answers what it was asked."""

    def __dir__(self) -> list[str]:
        raise AssertionError("the names of a connection are listed for each statement")

    async def fetch(self, *asked: object) -> list[object]:
        return [asked, asked]

    async def fetchrow(self, *asked: object) -> object:
        return asked

    fetchval = execute = fetchrow


async def test_values_go_in_the_order_of_the_text() -> None:
    """Each kind of statement has its parameters where the text names them, and no other question is asked."""
    ours: Any = Statements()  # type: ignore[no-untyped-call] # aiosql's
    sql = ours.process_sql("one", None, "SELECT :second, :first, :second")
    assert sql == "SELECT $1, $2, $1"
    asked, given = (sql, 2, 1), {"first": 1, "second": 2}
    connection = _Connection()
    assert await ours.select_one(connection, "one", sql, given) == asked
    assert await ours.select_value(connection, "one", sql, given) == asked
    assert await ours.insert_update_delete(connection, "one", sql, given) == asked
    assert [row async for row in ours.select(connection, "one", sql, given)] == [asked, asked]
