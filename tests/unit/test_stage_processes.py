"""The parent of stages that are forked goes on where there is no room for another process."""

import errno
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from infra.cli.stage_processes import _Forks


@pytest.fixture
def forks() -> Iterator[_Forks]:
    """A parent that has forked nothing yet, and takes the signals of this process until the test ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    forks = _Forks(["quota"], lambda _consumes: None)
    yield forks
    signal.set_wakeup_fd(-1)
    for line in (forks._wakes, forks._waking):
        line.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stage_that_cannot_be_forked_is_tried_again(forks: _Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later, and the parent keeps neither the sockets of the pair nor its signals blocked."""

    def fork() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    opened = psutil.Process().num_fds()
    began = time.monotonic()
    assert forks._begin("quota") is None
    assert forks._due["quota"] > began
    assert psutil.Process().num_fds() == opened
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, ())
