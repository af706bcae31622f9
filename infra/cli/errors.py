"""A user's error is one line on standard error instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from infra.cli.loading import nothing_unused

_FAILED = 1
_MISUSED = 2
_INTERRUPTED = 130


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors that a user can act on into a message and an exit code. Bugs pass through.

    What the code logs goes to standard error too: standard output is the command's own, a JSON document maybe.
    """
    import asyncio

    with nothing_unused():
        import structlog

    from infra.errors import InvalidSetting, TeamfitError
    from streams.redis.errors import TransportError

    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    try:
        yield
    except InvalidSetting as error:
        _say(str(error))
        raise typer.Exit(_MISUSED) from error
    except (TeamfitError, TransportError) as error:
        _say(str(error))
        raise typer.Exit(_FAILED) from error
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        raise typer.Exit(_INTERRUPTED) from error


def _say(message: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(f"teamfit: {message}", style="red", markup=False, highlight=False)
