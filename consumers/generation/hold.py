"""Workers with the same endpoint, model and key share a hold; see `fleet`.

Each keeps its own copy of it. Every begin of an attempt reads whether one stands. An endpoint is named by its address.
"""

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Self

from infra.errors import DependencyDown
from infra.settings import Settings

# Whoever waits asks this often, so that a hold that an operator or another worker's probe has ended is noticed.
_ASK_AGAIN: Final = timedelta(seconds=5)
_SPREAD_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever calls: workers with the same endpoint, model and key share their holds. `credential` is no key."""

    endpoint: str
    model: str
    credential: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the caller that these settings make."""
        key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""
        digest = hashlib.sha256(f"teamfit\0{key}".encode()).hexdigest()
        return cls(endpoint_of(settings), settings.model, digest[:12])


NO_CALLER: Final = Caller("", "", "")


class ProbeDue(DependencyDown):
    """The endpoint is held, and it is time to ask whether it works again."""


@dataclass
class Hold:
    """The hold of one caller.

    Attributes:
        began: when this process heard of it, by its clock, or None while none stands.
        clock: seconds that only move forward.
        caller: whose hold it is.
    """

    caller: Caller = NO_CALLER
    clock: Callable[[], float] = time.monotonic
    began: float | None = field(default=None, init=False)
    sentence: str = field(default="", init=False)
    blame: str | None = field(default=None, init=False)
    _until: float = field(default=0.0, init=False)
    _heard: float = field(default=0.0, init=False)

    def learn(self, sentence: str | None, wait: timedelta | None = None, blame: str | None = None) -> None:
        """Note what Postgres says: why and for how long yet, or that no hold stands."""
        if sentence is None:
            self.began = None
            return
        now = self._heard = self.clock()
        self.began = now if self.began is None else self.began
        self.sentence, self.blame, self._until = sentence, blame, now + (wait or timedelta()).total_seconds()

    def check_known(self) -> None:
        """Pass if no hold stands, or if Postgres must be asked again. `check` then knows the answer.

        Raises:
            DependencyDown: as `check`.
        """
        now = self.clock()
        if now < self._until and now - self._heard < _ASK_AGAIN.total_seconds():
            self.check()

    def check(self) -> None:
        """Pass if no hold stands.

        Raises:
            DependencyDown: one does; it says why, and when to ask again.
            ProbeDue: one does, and its time is over.
        """
        if self.began is None:
            return
        wait_s = self._until - self.clock()
        if wait_s <= 0:
            raise ProbeDue("llm", self.sentence)
        again_s = min(wait_s, _ASK_AGAIN.total_seconds()) + random.uniform(0, _SPREAD_S)
        raise DependencyDown("llm", self.sentence, retry_after=timedelta(seconds=again_s))


OPENAI: Final = "https://api.openai.com/v1"


def endpoint_of(settings: Settings) -> str:
    """Return the endpoint's address as the fleet names it, without its secrets."""
    # A whole HTTP client, and the API names endpoints only where operators ask for them.
    import httpx2  # noqa: PLC0415

    configured = (settings.openai_base_url or OPENAI).strip()
    try:
        return str(httpx2.URL(configured).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx2.InvalidURL:
        return "an address that is none"
