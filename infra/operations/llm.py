"""Operators see and undo gates, holds and dialects of LLM endpoints, and see their use."""

from collections.abc import Sequence

from consumers.generation import fleet, gate, meter
from consumers.generation.fleet import HeldEndpoint, LearnedDialect
from consumers.generation.gate import FleetGate
from consumers.generation.meter import EndpointUse
from infra.actions import Act, acting
from infra.errors import TeamfitError
from infra.postgres import Database
from streams.jobs.controls import CHANNEL


class NoSuchGate(TeamfitError):
    """No endpoint of this name has ever closed its gate."""


async def gates(database: Database) -> Sequence[FleetGate]:
    """Return every gate that was ever closed."""
    async with database.transaction() as connection:
        return await gate.gates(connection)


async def closed_gates(database: Database, endpoint: str | None) -> Sequence[FleetGate]:
    """Return the gates that are closed now: one endpoint's, or all.

    Raises:
        NoSuchGate: the endpoint has never closed one.
    """
    found = await gates(database)
    if endpoint is not None and endpoint not in {one.endpoint for one in found}:
        names = ", ".join(one.endpoint for one in found) or "none"
        raise NoSuchGate(f"no gate stands before {endpoint}; there are: {names} (teamfit llm gate show)")
    return [one for one in found if one.closed_for and endpoint in {None, one.endpoint}]


async def open_gates(database: Database, closed: Sequence[FleetGate]) -> Sequence[str]:
    """Open gates before their time; return the endpoints whose gate was closed. A repeat opens nothing.

    Generation workers that wait ask again within two seconds.
    """
    named = [one.endpoint for one in closed]
    act = Act("llm.gate.open", f"endpoint {', '.join(named)}")
    async with acting(database, act) as connection:
        opened = await gate.open_gates(connection, named)
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
        act.effects = {"opened": opened, "closed_until": {one.endpoint: one.closed_until for one in closed}}
        return opened


async def dialects(database: Database) -> Sequence[LearnedDialect]:
    """Return how each endpoint and model are asked, and why."""
    async with database.transaction() as connection:
        return await fleet.dialects(connection)


async def forget_dialects(database: Database, endpoint: str | None) -> Sequence[tuple[str, str]]:
    """Forget what was learned of one endpoint, or of all; return endpoints and models. The next call learns it again.

    Workers notice within half a minute.
    """
    act = Act("llm.dialect.forget", f"endpoint {endpoint or '(all)'}")
    async with acting(database, act) as connection:
        forgotten = await fleet.forget_dialects(connection, endpoint)
        act.effects = {"forgotten": [" ".join(one) for one in forgotten]}
        return forgotten


async def holds(database: Database) -> Sequence[HeldEndpoint]:
    """Return the endpoints that no worker calls, and who is to blame."""
    async with database.transaction() as connection:
        return await fleet.holds(connection)


async def endpoints(database: Database, hours: int) -> Sequence[EndpointUse]:
    """Return the endpoints that were called in the last hours."""
    async with database.transaction() as connection:
        return await meter.endpoints(connection, hours)
