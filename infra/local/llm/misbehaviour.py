"""An order tells the offline server how to fail; a tally counts its calls.

`PUT /control` with a JSON object sets what the next calls meet; `GET /control` says what is set and what was counted;
`DELETE /control` sets everything back, counts included.

    {"mode": "429", "count": 2, "retry_after": 1.5}    the next two calls are refused, those after them are answered
    {"mode": "slow", "latency": 30}                     every call takes 30 s, until something else is set
    {"mode": "ok", "latency": 0.2}                      every call is answered after 0.2 s
    {"mode": "rubbish", "containing": "a wish"}         calls whose body has this text meet it, and no others

`cut` resets the connection in the middle of the answer; `no_stream` refuses a stream with 400; `stream_without_usage`
streams and states no cost.

`GET /control/invoice` lists the answers to prompts that name an `invoice line NUMBER`, one by one, as a provider's
invoice does; an answer that was cut is on it too.

A single call can name its mode in the header `X-Offline-Mode`. The prompt cannot: it is data.
"""

import re
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_SLOW_S = 30.0
_LINE = re.compile(rb"invoice line (\d{1,9})\b")


class Mode(StrEnum):
    """The answer that a call gets."""

    OK = "ok"
    RATE_LIMITED = "429"
    SERVER_ERROR = "500"
    UNAVAILABLE = "503"
    BAD_KEY = "401"
    RUBBISH = "rubbish"
    TWO_ACTIVITIES = "two_activities"
    FOUR_ACTIVITIES = "four_activities"
    TRUNCATED = "truncated"
    REFUSAL = "refusal"
    CONTENT_FILTER = "content_filter"
    SLOW = "slow"
    RESET = "reset"
    CUT = "cut"
    NO_STREAM = "no_stream"
    STREAM_WITHOUT_USAGE = "stream_without_usage"
    SCHEMA_UNSUPPORTED = "schema_unsupported"


class Order(BaseModel):
    """The answers for the next calls, as `PUT /control` takes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Mode.OK
    count: Annotated[int, Field(ge=1)] | None = None
    """How many calls meet the mode before they are answered again; all of them if absent."""
    retry_after: Annotated[float, Field(ge=0)] | None = None
    """Seconds, for the `Retry-After` header of a 429 or a 503."""
    latency: Annotated[float, Field(ge=0)] | None = None
    """Seconds that each call takes; the server's own latency if absent, 30 for `slow`."""
    containing: str | None = None
    """Only calls whose body has this text, as JSON writes it, meet the order; all of them if absent."""


class Tally(BaseModel):
    """The counts since the start or the last `DELETE /control`."""

    received: int = 0
    in_flight: int = 0
    answered: int = 0
    by_mode: dict[str, int] = Field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    beyond_limits: int = 0


class Line(BaseModel):
    """A call that is on the invoice.

    Attributes:
        number: as the prompt names it.
    """

    number: int
    streamed: bool
    prompt_tokens: int
    completion_tokens: int


class Control:
    """The current order and the counts."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self.reset()

    def reset(self) -> None:
        """Answer every call again, and count from zero."""
        self.order = Order()
        self._remaining: int | None = None
        self.tally = Tally()
        self.invoice: list[Line] = []
        self._by_mode: Counter[str] = Counter()

    def obey(self, order: Order) -> None:
        """Let the next calls meet this order."""
        self.order = order
        self._remaining = order.count

    def take(self, named: Mode | None, body: bytes) -> tuple[Mode, float]:
        """Count a call, and return its mode and its latency in seconds."""
        order = self.order
        if named is not None:
            order = Order(mode=named)
        elif order.containing is not None and order.containing.encode() not in body:
            order = Order()
        elif self._remaining is not None:
            self._remaining -= 1
            if self._remaining == 0:
                self.obey(Order(latency=order.latency if order.mode == Mode.OK else None))
        self.tally.received += 1
        self._by_mode[order.mode.value] += 1
        usual = _SLOW_S if order.mode == Mode.SLOW else self._latency_s
        return order.mode, usual if order.latency is None else order.latency

    def bill(self, body: bytes, usage: Mapping[str, int], *, streamed: bool) -> None:
        """Count an answer's tokens; one whose prompt names a line stands on the invoice."""
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        self.tally.answered += 1
        self.tally.prompt_tokens += prompt
        self.tally.completion_tokens += completion
        named = _LINE.search(body)
        if named is not None:
            self.invoice.append(
                Line(number=int(named[1]), streamed=streamed, prompt_tokens=prompt, completion_tokens=completion)
            )

    def report(self) -> dict[str, object]:
        """Return the order and the counts, as `GET /control` gives them."""
        self.tally.by_mode = dict(self._by_mode)
        return {**self.order.model_dump(), "remaining": self._remaining, "calls": self.tally.model_dump()}
