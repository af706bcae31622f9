"""An operator works on plans by commands, and in the console."""

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
import psutil

from infra.auth import OPERATOR, issue_token, signing_key
from infra.console.desk import COOKIE
from infra.console.sessions import Sessions
from infra.local.environment import environment
from infra.local.stack import Stack
from infra.postgres import Database

_BECAUSE: Final = "a benchmark"
_MEGABYTE: Final = 1_000_000
_SAMPLED_S: Final = 0.1
_SHOWN: Final = 10
_PAGES: Final = {"cancel": "/cancels", "discard": "/discards", "replay": "/replay"}
# The beginning of a statement and its time, as Postgres logs them; one of asyncpg is executed under a name.
_SLOW: Final = re.compile(r"duration: ([\d.]+) ms  (?:execute [^:]*|statement): (.*(?:\n\t.*){0,2})")


@dataclass(slots=True)
class Operator:
    """Somebody with a terminal and a browser.

    Attributes:
        stack: the pipeline that they work on.
        kind: of their plans: `cancel`, `discard` or `replay`.
        console: a client that is signed in.
        form_token: what the session's forms carry.
        peak_mb: the most memory that a command took, by its name.
    """

    stack: Stack
    kind: str
    console: aiohttp.ClientSession
    form_token: str
    peak_mb: dict[str, float] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack, kind: str) -> AsyncIterator[Self]:
        """Sign somebody in."""
        database = Database(stack.settings.database_url, size=1)
        try:
            session = await Sessions(database).begin("bench", "operator")
        finally:
            await database.close()
        headers = {"Cookie": f"{COOKIE}={session.secret}"}
        async with aiohttp.ClientSession(stack.api_url, headers=headers) as console:
            yield cls(stack, kind, console, session.form_token)

    # --- commands ---

    async def run(self, *arguments: str) -> str:
        """Run a command to its good end; return what it has printed."""
        code, output = await self.ended(*arguments)
        if code:
            raise SystemExit(f"teamfit {' '.join(arguments)}: {code}\n{output}")
        return output

    async def ended(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its code and what it has printed."""
        process = await self._started(*arguments)
        ended = asyncio.create_task(process.communicate())
        while not ended.done():
            self._sample(process, " ".join(arguments[:2]))
            await asyncio.wait([ended], timeout=_SAMPLED_S)
        output, errors = await ended
        return process.returncode or 0, (output + errors if process.returncode else output).decode()

    async def plan(self) -> dict[str, Any]:
        """Make a plan of everything."""
        more = ["--stage", "generation"] if self.kind == "replay" else []
        plan: dict[str, Any] = json.loads(await self.run(self.kind, "plan", *more, "--json"))
        return plan

    async def begin(self, *arguments: str) -> Process:
        """Begin a command that takes long."""
        return await self._started(*arguments)

    async def kill(self, applier: Process) -> None:
        """End a process at once."""
        self._sample(applier, "the killed command")
        applier.send_signal(signal.SIGKILL)
        await applier.communicate()

    async def status(self, plan_id: str) -> dict[str, Any]:
        """Return a plan as its command shows it."""
        plan: dict[str, Any] = json.loads(await self.run(self.kind, "status", plan_id, "--json"))
        return plan

    def how(self, rate: int) -> list[str]:
        """Return the options with which a plan is applied."""
        why = [] if self.kind == "replay" else ["--because", _BECAUSE]
        return ["--rate", f"{rate}/s", *why, "--yes"]

    def count(self, plan: dict[str, Any]) -> int:
        """Return how many items of a plan are done."""
        return int(plan["sent"] if self.kind == "replay" else plan["total"] - plan["left"])

    async def _started(self, *arguments: str) -> Process:
        command = [sys.executable, "-m", "infra.cli", *arguments]
        return await asyncio.create_subprocess_exec(
            *command, env=environment(self.stack.settings), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )

    def _sample(self, process: Process, name: str) -> None:
        with suppress(psutil.NoSuchProcess):
            size = psutil.Process(process.pid).memory_info().rss / _MEGABYTE
            self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), size)

    # --- the API ---

    async def erase_on(self, organization_id: str, after: str | None) -> dict[str, Any]:
        """Erase some more of an organization's texts; return the answer."""
        key = signing_key(self.stack.settings)
        token = issue_token(key, organization_id=organization_id, subject="bench", scopes=(OPERATOR,))
        body = {"organization_id": organization_id, "after": after}
        async with self.console.post(
            "/api/ops/organizations/erase", json=body, headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            answer.raise_for_status()
            so_far: dict[str, Any] = await answer.json()
            return so_far

    # --- the console ---

    async def page(self, plan_id: str) -> str:
        """Return the page of a plan."""
        async with self.console.get(f"/console{_PAGES[self.kind]}/{plan_id}") as answer:
            answer.raise_for_status()
            return await answer.text()

    async def post(self, what: str, **fields: str) -> None:
        """Send a form of a plan's page."""
        status, text = await self._posted(what, **fields)
        if status != 303:  # noqa: PLR2004 - see other
            raise SystemExit(f"{what}: {status} {text}")

    async def apply_in_console(self, plan_id: str, rate: int) -> None:
        """Apply a plan there, as soon as whoever was at it has let go."""
        why = {} if self.kind == "replay" else {"because": _BECAUSE}
        before = await self.done(plan_id)
        while True:
            await self.post(f"{plan_id}/apply", rate=str(rate), **why)
            for _ in range(_SHOWN):
                if await self.done(plan_id) > before:
                    return
                await asyncio.sleep(0.1)

    async def _posted(self, what: str, **fields: str) -> tuple[int, str]:
        form = {"form_token": self.form_token, **fields}
        address = f"/console{_PAGES[self.kind]}/{what}"
        async with self.console.post(address, data=form, allow_redirects=False) as answer:
            return answer.status, await answer.text()

    async def done(self, plan_id: str) -> int:
        """Return how many items are done, as the console's page says."""
        page = await self.page(plan_id)
        found = re.search(r"(?:Done|Sent): ([\d,]+) of", page)
        if found is None:
            raise SystemExit(f"the page of plan {plan_id} does not say how far it is")
        return int(found[1].replace(",", ""))

    def has_stopped(self, plan_id: str) -> Callable[[], Awaitable[bool]]:
        """Return what asks whether a plan is applied no more."""

        async def stopped() -> bool:
            return " a second" not in (await self.page(plan_id)).partition("<progress")[0]

        return stopped

    # --- the database ---

    def slow_statements(self) -> list[str]:
        """Return the slowest statements that the embedded Postgres has logged, each with its longest time."""
        if self.stack.postgres is None:
            return []
        longest: dict[str, float] = {}
        for time_ms, statement in _SLOW.findall(self.stack.postgres.log.read_text(errors="replace")):
            short = " ".join(statement.split())[:80]
            longest[short] = max(longest.get(short, 0.0), float(time_ms))
        slowest = sorted(longest.items(), key=lambda one: -one[1])[:_SHOWN]
        return [f"{time_ms:,.0f} ms {statement}" for statement, time_ms in slowest]
