"""Tests run the commands as an operator does, on servers of their own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from typer.testing import CliRunner, Result

from infra.cli import app
from infra.settings import settings

Run: TypeAlias = Callable[..., Awaitable[Result]]


def commands(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Run:
    """Return what runs a command with these variables.

    Each command has an event loop of its own, so it gets a thread. Nothing answers what it asks, unless told.
    """
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def run(*arguments: object, answer: str = "") -> Result:
        # Of the environment as it is by now, whatever this process has read before.
        settings.cache_clear()
        return await asyncio.to_thread(CliRunner().invoke, app, [str(one) for one in arguments], input=answer)

    return run
