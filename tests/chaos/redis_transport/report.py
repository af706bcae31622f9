"""The table of the transport's fault tests: each test adds its row, and the run prints them in the end."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

from rich.console import Console
from rich.table import Table

from tests.chaos.redis_transport.fleet import Fleet

COLUMNS = (
    "fault", "injected", "events", "lost", "duplicate starts", "duplicate effects", "recovery p50", "recovery p99",
)  # fmt: skip

_PAGE = """# What the Redis transport survives

Written by the fault tests of `tests/chaos/redis_transport/`: real worker processes, a real server with an append-only
file, effects counted on a server of their own. Run on {date}, {machine}:

    TRANSPORT_RELIABILITY={path} python -m pytest -m chaos tests/chaos/redis_transport

{table}

- **lost**: events without an effect; **duplicate effects**: effects of one event beyond the first.
- **duplicate starts**: events handed to an agent again. After a crash that is the guarantee at work; without a fault,
  after a graceful stop and while workers come and go it must be zero, and the tests fail if it is not.
- **recovery**: from the moment of the kill to the start, on another worker, of each event that the killed one held. The
  lease is one second and the scan 0.2 s.
"""


@dataclass
class Row:
    """What one fault did."""

    fault: str
    injected: int
    events: int
    lost: int
    duplicate_starts: int
    duplicate_effects: int
    recovery: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """The row as the table shows it."""
        counts = (self.injected, self.events, self.lost, self.duplicate_starts, self.duplicate_effects)
        hundredths = quantiles(self.recovery, n=100, method="inclusive") if len(self.recovery) > 1 else self.recovery
        p50_p99 = [f"{hundredths[at]:.2f} s" for at in (len(hundredths) // 2, -1)] if hundredths else ["", ""]
        return [self.fault, *(f"{count:,}" for count in counts), *p50_p99]


ROWS: list[Row] = []


def add(row: Row) -> None:
    """Add a row, and fail the test unless nothing was lost or done twice."""
    ROWS.append(row)
    assert (row.lost, row.duplicate_effects) == (0, 0)


async def check(fleet: Fleet, fault: str, times: int) -> None:
    """Wait for every effect and an empty pending entries list, then add the fault's row."""
    await fleet.all_done()
    await fleet.nothing_pending()
    done = {record.name for record in fleet.records("effect")}
    starts, effects = fleet.repeated("start"), fleet.repeated("effect")
    add(Row(fault, times, fleet.sent, fleet.sent - len(done), starts, effects, fleet.recovery_times()))


def _rows() -> list[Row]:
    # Tests run in random order; a page that is written again should show what changed.
    return sorted(ROWS, key=lambda row: row.fault.lower())


def print_table() -> None:
    """Print what was collected."""
    table = Table(title="Redis transport: faults")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "fault" else "right")
    for row in _rows():
        table.add_row(*row.cells())
    Console(width=140).print(table)


def write_page(path: Path) -> None:
    """Write the table as a page of the documentation."""
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *(row.cells() for row in _rows())]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    date = datetime.now(UTC).date().isoformat()
    path.write_text(_PAGE.format(date=date, machine=machine, path=path, table=table))
