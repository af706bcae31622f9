"""Tests run the commands as an operator does, on servers of their own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
from typer.testing import CliRunner, Result

from infra.cli import app
from infra.settings import settings

Run: TypeAlias = Callable[..., Awaitable[Result]]


@asynccontextmanager
async def commands(monkeypatch: pytest.MonkeyPatch, **variables: str) -> AsyncIterator[Run]:
    """Give what runs a command with these variables.

    Each command has an event loop of its own, so it gets a thread. Nothing answers what it asks, unless told.
    """
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()

    async def run(*arguments: object, answer: str = "") -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [str(one) for one in arguments], input=answer)

    try:
        yield run
    finally:
        settings.cache_clear()
