"""A filter that finds nothing says which organization or team of it is not known.

Nothing found looks like good news. An ID is an organization's own, so a misspelt one cannot be refused as a misspelt
state is: what has been deleted is still asked for. It is told beside the empty answer, with the nearest ID there is.
"""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import aiosql

from infra.postgres import Connection, Database

_queries = aiosql.from_path(Path(__file__).with_name("known_names.sql"), "asyncpg")

_LONGEST_COMPARED: Final = 100
_ALIKE: Final = 0.75
"""Lower: names are offered that were not meant; higher: a second slip of the finger finds none."""


async def unknown_names(
    database: Database, *, organization_id: str | None = None, team_id: str | None = None
) -> str | None:
    """Return what a filter names that is not known; None if all is.

    Each is told with the name nearest to it.

    Raises:
        DependencyDown: Postgres is away.
    """
    if organization_id is None and team_id is None:
        return None
    told = []
    async with database.transaction() as connection:
        if organization_id is not None and not await _queries.knows_organization(
            connection, organization_id=organization_id
        ):
            told.append(await _unknown(connection, "organization", organization_id, _queries.organizations_near))
        if team_id is not None:
            owner = await _queries.owner_of_team(connection, team_id=team_id)
            if owner is None:
                told.append(await _unknown(connection, "team", team_id, _queries.teams_near))
            elif organization_id is not None and owner["organization_id"] not in (None, organization_id):
                told.append(f"team {team_id}: is of organization {owner['organization_id']}, not of {organization_id}")
    return "; ".join(told) or None


async def _unknown(connection: Connection, kind: str, name: str, near: Callable[..., Any]) -> str:
    candidates = (await near(connection, name=name))["names"]
    meant = get_close_matches(name.casefold()[:_LONGEST_COMPARED], candidates, n=1, cutoff=_ALIKE)
    return f"{kind} {name}: not known; {f'did you mean `{meant[0]}`?' if meant else 'check the ID'}"
