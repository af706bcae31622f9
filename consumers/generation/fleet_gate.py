"""An operator sees the fleet's shared gate here. See `gate` for its rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import aiosql

from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("fleet_gate.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class FleetGate:
    """One endpoint's gate. `closed_for` is zero when it is open; the times are by Postgres's clock."""

    endpoint: str
    closed_until: datetime
    closed_for: timedelta
    reason: str


async def gates(connection: Connection) -> list[FleetGate]:
    """Return every gate that was ever closed."""
    return [FleetGate(**row) async for row in _queries.gates(connection)]


async def open_gates(connection: Connection, endpoints: Sequence[str]) -> list[str]:
    """Open these gates in the caller's transaction; return those that were closed.

    Each generation worker looks at the controls every second, and asks again at once; see its `obey_gates`.
    """
    # The rows are the UPDATE's own, so they are read to the end before anything else happens.
    return [row["endpoint"] async for row in _queries.open_gates(connection, endpoints=list(endpoints))]


async def close_gate(connection: Connection, endpoint: str, lasts: timedelta, reason: str) -> None:
    """Close a gate in the caller's transaction. Every begin of an attempt reads it, so it counts from the next one."""
    await _queries.close_gate(connection, endpoint=endpoint, lasts=lasts, reason=reason)
