"""What the harness needs of a system under test, so that both designs meet the same faults and are counted alike."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID

from tests.chaos.pipeline.grounds import Grounds

NEVER_BEGAN = "pending"
ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Books:
    """What a row of the scoreboard has cost beyond what it should.

    Attributes:
        duplicate_effects: results that were saved more than once, or not as a whole.
        double_charges: units of quota charged beyond one for each completed job.
        completed: jobs that completed, those included whose caller heard an error.
        known: all jobs that ended in the row.
        failures: how many jobs failed, by the code that the customer reads.
    """

    duplicate_effects: int
    double_charges: int
    completed: int
    known: int
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Load:
    """The jobs of one row: whose they are, and when each was accepted, by the caller's own clock.

    Attributes:
        refused: requests that got an error instead; their callers know that they must ask again.
    """

    organization_id: str
    accepted: dict[UUID, datetime] = field(default_factory=dict)
    refused: int = 0


class System(Protocol):
    """A running system: its parts can be killed and brought back, jobs sent, books read."""

    name: str
    grounds: Grounds

    async def open_account(self, organization_id: str) -> None:
        """Add an organization with quota enough."""
        ...

    async def submit(self, load: Load, number: int, *, durable_only: bool = False) -> None:
        """Send jobs by every way in, and note those that were accepted; errors are counted.

        Args:
            durable_only: only by ways in that promise a durable job at once (with ours, HTTP).
        """
        ...

    async def anchored(self, load: Load) -> bool:
        """Whether every job accepted so far is known to the database."""
        ...

    async def statuses(self, load: Load) -> Mapping[UUID, str]:
        """Return the statuses of the row's jobs. Raises DependencyDown while the database is away."""
        ...

    async def books(self, load: Load) -> Books:
        """Read what the row has cost."""
        ...

    async def llm(self, **order: object) -> None:
        """Tell the LLM how to behave."""
        ...

    async def llm_calls(self) -> int:
        """Return how many calls the LLM has received since the system started."""
        ...

    def parts(self, kind: str) -> Sequence[str]:
        """Return the names of the processes of a kind."""
        ...

    def pid(self, part: str) -> int:
        """Return a part's process ID."""
        ...

    def kill(self, part: str) -> None:
        """`kill -9` a part, its own children included."""
        ...

    def start(self, part: str) -> None:
        """Start a part that was killed, and wait until it works. Blocks."""
        ...

    async def inconsistencies(self, *, deadline_s: float) -> Sequence[str]:
        """Check every promise that can be checked in the books of this design; a sentence for each broken one."""
        ...


# What a fault does to a system that it has been done to so many times before.
Inject: TypeAlias = Callable[[System, int], AbstractAsyncContextManager[None]]
