"""A pipeline of real processes that runs as long as a block does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from infra.local.stack import Stack


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Start the stack, and stop it when the block ends; both in a thread, because they run event loops of their own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(stack.__enter__).result()
        try:
            yield stack
        finally:
            thread.submit(stack.close).result()
