"""A clock for parts of the transport that are tested without a server."""

import pytest

from tests.stepped_clock import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is set."""
    return Clock()
