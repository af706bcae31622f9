"""The last line of every test that runs a pipeline: nothing was lost, charged twice or saved twice."""

import asyncpg

from infra.verify import Report, verify
from tests.waiting import wait_for


async def assert_consistent(
    database_url: str, *, settled: bool = True, llm_calls: int | None = None, deadline_s: float = 15.0
) -> Report:
    """Assert that every invariant holds, as `teamfit verify` checks them; return the report.

    Args:
        settled: the pipeline should be at rest. Facts may still be on their way to the ledger and the archive when a
            customer sees the end of a job, so this waits for it.
        llm_calls: how many calls the LLM endpoint received; its `GET /control` counts them.
        deadline_s: how long to wait for the rest.
    """
    connection = await asyncpg.connect(database_url)
    try:

        async def consistent() -> Report:
            report = await verify(connection, settled=settled, llm_calls=llm_calls)
            assert report.ok, report.explain()
            return report

        if not settled:
            return await consistent()
        return await wait_for(consistent, deadline_s=deadline_s, what="a consistent database")
    finally:
        await connection.close()
