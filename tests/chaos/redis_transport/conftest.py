"""Prints the table of all faults when the run ends, and writes it as a page when TRANSPORT_RELIABILITY names one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.redis_transport import report


def pytest_terminal_summary() -> None:
    """One table for all faults."""
    if not report.ROWS:
        return
    report.print_table()
    page = os.environ.get("TRANSPORT_RELIABILITY")
    if page:
        report.write_page(Path(page))
