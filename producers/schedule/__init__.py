"""The schedule: publishes what waits in `scheduled_events` (retries, delayed jobs) when it is due.

`faust -A producers.schedule worker` runs it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producers.schedule.worker import app as app


def __getattr__(name: str) -> object:
    """Build the Faust app when it is asked for: importing the rest needs neither settings nor a broker."""
    if name == "app":
        from producers.schedule.worker import app  # noqa: PLC0415 - that is what makes it lazy

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
