"""Prints the table of all faults when the run ends, and writes it as a page when TRANSPORT_RELIABILITY names one.

Where several processes run the tests, each hands its rows to the one that prints.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.redis_transport import report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the rows on."""
    handed_on: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if handed_on is not None:
        handed_on["rows"] = [asdict(row) for row in report.ROWS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the rows of a process that has ended; one that was killed has none."""
    report.ROWS.extend(report.Row(**row) for row in getattr(node, "workeroutput", {}).get("rows", ()))


def pytest_terminal_summary(config: pytest.Config) -> None:
    """One table for all faults, by the process that has all rows."""
    if not report.ROWS or hasattr(config, "workeroutput"):
        return
    report.print_table()
    page = os.environ.get("TRANSPORT_RELIABILITY")
    if page:
        report.write_page(Path(page))
