"""A process leaves out what libraries load for something that it never does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_unused() -> Iterator[None]:
    """Have imports in this block do as they do where these are not installed.

    That is Rich, which structlog loads for tracebacks on a terminal, where there is none, and OpenTelemetry, which the
    `redis` package loads for metrics that it is not asked for. What is loaded already stays; who needs one of them
    later, for traces say, loads it then.
    """
    unused = ["opentelemetry", *([] if sys.stderr.isatty() else ["rich"])]
    left_out = [name for name in unused if name not in sys.modules]
    # https://docs.python.org/3/reference/import.html#the-module-cache: the import of what is None there fails.
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type] # typeshed knows modules alone
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
