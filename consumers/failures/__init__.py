"""The failures stage: keeps every dead letter as a row of `failed_events`, where it can be found and replayed from.

`faust -A consumers.failures worker` runs it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumers.failures.worker import app as app


def __getattr__(name: str) -> object:
    """Build the Faust app when it is asked for: importing the handlers needs neither settings nor a broker."""
    if name == "app":
        from consumers.failures.worker import app  # noqa: PLC0415 - that is what makes it lazy

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
