"""These statements find jobs, chosen by how many seem to meet a filter.

A statement of a page would rather read an index in the page's order. Of conditions that no index has together it would
pass by all jobs that meet one and not the rest, be they few or many.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiosql

from infra.postgres import Connection

# So many are read and sorted soon enough.
_FEW: Final = 10_000
MANY: Final = 4 * _FEW
"""So many are found soon enough in the order of a page, though others lie between them."""
# An index has these conditions together, in the order of time.
_INDEXED: Final[Sequence[set[str]]] = (
    *(set(), {"status"}, {"organization_id"}, {"team_id"}, {"error_code"}, {"run"}),
    *({"organization_id", "status"}, {"run", "status"}),
)

_JOBS: Final = "customization_jobs AS job"
# Fenced off by OFFSET: the planner would rather read all jobs than look up each that has the words.
_JOBS_SAYING: Final = """(
    SELECT one.job_id::uuid AS job_id FROM job_words AS one WHERE one.words @@ websearch_to_tsquery('simple', :words)
) AS said
CROSS JOIN LATERAL (SELECT * FROM customization_jobs AS one WHERE one.job_id = said.job_id OFFSET 0) AS job"""
_SAYS: Final = """EXISTS (
    SELECT FROM job_words AS said
    WHERE said.job_id = job.job_id::text AND said.words @@ websearch_to_tsquery('simple', :words) OFFSET 0
)"""


def filtered(name: str, *, jobs: str = _JOBS) -> Any:  # noqa: ANN401 - aiosql's queries have no types
    """Return a file's statements with the conditions of a filter of jobs in them."""
    folder = Path(__file__).parent
    _, _, chosen = (folder / "job_filter.sql").read_text(encoding="utf-8").partition("\n")
    _, _, statements = (folder / name).read_text(encoding="utf-8").partition("\n\n")
    for place, text in (("jobs", jobs), ("chosen", chosen.rstrip()), ("says", _SAYS)):
        statements = statements.replace(f"/* {place} */", text)
    if ":words" not in statements:
        statements = statements.replace(", words)", ")")
    return aiosql.from_str(statements, "asyncpg")


# Read as if no page wanted its order: an index in that order would pass by those that meet but one condition.
_JOBS_TOGETHER: Final = "(SELECT * FROM customization_jobs AS job WHERE /* chosen */ OFFSET 0) AS job"


PLAIN = filtered("job_search.sql")
_together = filtered("job_search.sql", jobs=_JOBS_TOGETHER)
_saying = filtered("job_search.sql", jobs=_JOBS_SAYING)
WALK = filtered("job_walk.sql")
_walk_together = filtered("job_walk.sql", jobs=_JOBS_TOGETHER)


async def statements_for(connection: Connection, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as `filtered`
    """Return the statements for a filter without words, or with words that few jobs have."""
    if values.get("words") is not None:
        return _saying
    return _together if await _are_few(connection, values) else PLAIN


async def walk_for(connection: Connection, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as `filtered`
    """Return the statements for a filter with words that many jobs have."""
    return _walk_together if await _are_few(connection, values) else WALK


async def _are_few(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Return true if few jobs seem to meet several conditions that no index has together.

    Of many, the transaction puts no indices together: it reads one in the order of a page, as far as a page needs.
    """
    conditions = {name: value for name, value in values.items() if name != "words"}
    given = {name for name, value in conditions.items() if value is not None} - {"since", "until"}
    if given in _INDEXED or "job_ids" in given:
        return False
    plan = await PLAIN.plan_of(connection, **conditions)
    expected = plan[0]["Plan"]["Plan Rows"]
    if expected > MANY:
        await connection.execute("SET LOCAL enable_bitmapscan = off")
    return bool(expected <= _FEW)
