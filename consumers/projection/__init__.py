"""Keeps the archive of facts and the read model that customers poll. `faust -A consumers.projection worker` runs it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import faust

    app: faust.App


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    """Make the Faust app when it is asked for, so that importing the fold or the status API needs no broker."""
    if name == "app":
        from consumers.projection.worker import app  # noqa: PLC0415 - late on purpose, as said above

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
