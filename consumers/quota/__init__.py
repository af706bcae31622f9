"""The quota stage: admits or refuses job requests, holds a unit of quota for each admitted run, and settles it.

`faust -A consumers.quota worker` runs it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumers.quota.worker import app as app


def __getattr__(name: str) -> object:
    """Build the Faust app when it is asked for: importing the handlers needs neither settings nor a broker."""
    if name == "app":
        from consumers.quota.worker import app  # noqa: PLC0415 - that is what makes it lazy

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
