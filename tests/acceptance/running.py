"""A pipeline of real processes that runs as long as a block does, or as the tests of a folder."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.conftest import run_apart
from tests.verified import assert_consistent


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Start the stack, and stop it when the block ends; both in a thread, because they run event loops of their own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(stack.__enter__).result()
        try:
            yield stack
        finally:
            thread.submit(stack.close).result()


class SharedPipeline:
    """One for all tests of a folder. It is started by the first that asks, and stopped with the last.

    A session's fixture would end with the session: idle, it would take time from all the tests of other folders.
    """

    def __init__(self, folder: Path, make: Callable[[], Stack]) -> None:
        self._folder, self._make = folder, make
        self._running: tuple[Stack, ExitStack] | None = None

    def get(self) -> Stack:
        """Return it, started."""
        if self._running is None:
            opened = ExitStack()
            self._running = opened.enter_context(running(self._make())), opened
        return self._running[0]

    def stop_before(self, following: pytest.Item | None) -> None:
        """Stop it if it runs and the following test is of another folder, or there is none.

        Whatever the tests did to it: nothing is lost, stuck, or done twice.
        """
        if self._running is None or (following is not None and self._folder in following.path.parents):
            return
        (stack, opened), self._running = self._running, None
        with opened:
            run_apart(assert_consistent(stack.settings.database_url, deadline_s=60))
