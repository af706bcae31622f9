"""The route decides to which endpoint a job goes, and to which one next.

taken ──it holds──▶ the next that may be taken ──all hold──▶ the stage holds, as with one endpoint

A job has one attempt at a time: it goes on only when the attempt before has ended and is on record. Weights share jobs
out among the endpoints that work.

If the process dies between two endpoints, the entry is delivered again and begins anew, with the failed call on record.
"""

from collections.abc import Awaitable, Callable, Container, Sequence
from datetime import timedelta
from typing import Final, Self, TypeVar

from consumers.generation.endpoint_file import Endpoints, EndpointSpec, endpoints_of, settings_of
from consumers.generation.hold import endpoint_of
from consumers.generation.line import Line
from consumers.generation.prompt import OUR_TOKENS, approximate_tokens
from consumers.generation.runs import Unpriced, attempt_time
from infra import telemetry
from infra.clock import Clock
from infra.errors import DependencyDown, Permanent, Postponed
from infra.postgres import Database
from infra.settings import Settings
from streams.jobs.events import JobAccepted, JobId

T = TypeVar("T")

# A job that may not go where others go comes again so often; sooner would only fill the schedule.
_COMES_AGAIN: Final = (timedelta(seconds=1), timedelta(seconds=30))


class Route:
    """All endpoints of this worker. With one, a job is its call and nothing is chosen."""

    def __init__(self, lines: Sequence[Line], endpoints: Endpoints | None, settings: Settings) -> None:
        self.lines = lines
        self._endpoints = endpoints
        self._settings = settings
        self._credit = dict.fromkeys((line.name for line in lines), 0.0)

    @classmethod
    def of(cls, settings: Settings, database: Database, clock: Clock, *, connections: int) -> Self:
        """Return the route that the settings ask for.

        Raises:
            InvalidSetting: the file of endpoints cannot be used.
        """
        endpoints = endpoints_of(settings)
        if endpoints is None:
            only = Line(database=database, clock=clock, settings=settings, connections=connections)
            return cls([only], None, settings)
        lines = [
            Line(
                database=database,
                clock=clock,
                settings=settings_of(settings, spec),
                connections=connections,
                spec=spec,
                gate_name=_gate_name(settings, spec, endpoints.endpoint),
                alone=len(endpoints.endpoint) == 1,
            )
            for spec in endpoints.endpoint
        ]
        return cls(lines, endpoints, settings)

    async def call(self, event: JobAccepted, work: Callable[[Line], Awaitable[T]]) -> T:
        """Do a job's work with the first endpoint that takes it.

        Raises:
            DependencyDown: none takes calls now, or something else is away.
            Postponed: none of those that this job may go to does, while others do.
            Permanent: the job may go to none; or it has a budget, and no model that takes calls has a price.
        """
        if self._endpoints is None:
            return await work(self.lines[0])
        downs: list[DependencyDown] = []
        unpriced: Unpriced | None = None
        for line in self._order(event, self._endpoints):
            try:
                return await work(line)
            except Unpriced as refused:
                unpriced = refused
            except DependencyDown as down:
                if down.dependency != "llm":
                    raise
                line.rest()
                downs.append(down)
                telemetry.LLM_PASSED_ON.labels(line.name).inc()
        if unpriced is not None and not downs:
            raise unpriced
        soonest = min(downs, key=lambda down: down.retry_after or timedelta())
        if all(line.is_away for line in self.lines) or len(downs) == len(self.lines):
            raise soonest
        # The stage goes on for those that may go elsewhere.
        shortest, longest = _COMES_AGAIN
        raise Postponed(str(soonest), delay=min(max(soonest.retry_after or shortest, shortest), longest)) from soonest

    async def ask(self) -> None:
        """Ask without a job whether an endpoint takes calls.

        Raises:
            DependencyDown: none does, or something else is away.
        """
        downs: list[DependencyDown] = []
        for line in self.lines:
            try:
                return await line.ask()
            except DependencyDown as down:
                if down.dependency != "llm":
                    raise
                downs.append(down)
        raise min(downs, key=lambda down: down.retry_after or timedelta())

    def open_gates(self, closed: Container[str]) -> bool:
        """Open the gates that the fleet has opened; return whether one was closed."""
        opened = [line.gate.open_early() for line in self.lines if line.gate.endpoint not in closed]
        return any(opened)

    def room(self, slots: int) -> int:
        """Return how many of these slots the limits of all endpoints have room for."""
        rooms = [line.room for line in self.lines]
        return min(slots, sum(slots if one is None else one for one in rooms))

    async def give_up(self, job_id: JobId, run: int, *, error_code: str) -> None:
        """End the unfinished attempts of a run that is given up, at any endpoint."""
        await self.lines[0].give_up(job_id, run, error_code=error_code)

    async def close(self) -> None:
        """Close the connections of all."""
        for line in self.lines:
            await line.close()

    def _order(self, event: JobAccepted, endpoints: Endpoints) -> list[Line]:
        """Return the endpoints that the job may go to, in the order of trying."""
        rule = endpoints.rule_of(event.data.organization_id)
        allowed = [line for line in self.lines if line.spec is not None and rule.allows(line.spec, (line.form,))]
        if not allowed:
            raise Permanent(
                "llm_no_endpoint",
                f"no LLM endpoint is allowed for organization {event.data.organization_id}: "
                f"look at its rule in {self._settings.llm_endpoints}, and at `teamfit llm dialect show`",
            )
        tokens = self._most_tokens(event)
        long_enough = [line for line in allowed if _fits(line.spec, tokens)]
        if not long_enough:
            message = f"up to {tokens} tokens are more than the `context_tokens` of each endpoint that it may go to"
            raise Permanent("llm_prompt_too_long", message)
        return self._in_turn(long_enough)

    def _most_tokens(self, event: JobAccepted) -> int:
        wish = approximate_tokens(event.data.requirements)
        return OUR_TOKENS + wish + self._settings.materials_token_budget + self._settings.max_completion_tokens

    def _in_turn(self, lines: Sequence[Line]) -> list[Line]:
        """Return the endpoints with the one whose turn it is first: each has its turn as often as its weight says.

        One that is away is asked before the others when it is time to: then the job finds out, and goes on. Until
        then it comes last.
        """
        due = [line for line in lines if line.is_away and line.asks_again]
        away = [line for line in lines if line.is_away and not line.asks_again]
        working = [line for line in lines if not line.is_away]
        for line in working:
            self._credit[line.name] += _weight(line)
        working.sort(key=lambda line: (line.is_full, _weight(line) == 0, -self._credit[line.name]))
        if working:
            self._credit[working[0].name] -= sum(_weight(line) for line in working)
        return [*due, *working, *away]


def delivery_time(settings: Settings) -> timedelta:
    """Return the time limit of a delivery: a wait and a call at each endpoint."""
    endpoints = endpoints_of(settings)
    for_one = attempt_time(settings) + timedelta(seconds=settings.stage_timeout_s)
    return for_one * (len(endpoints.endpoint) if endpoints else 1)


def _weight(line: Line) -> float:
    return line.spec.weight if line.spec else 1.0


def _fits(spec: EndpointSpec | None, tokens: int) -> bool:
    return spec is None or spec.context_tokens is None or tokens <= spec.context_tokens


def _gate_name(settings: Settings, spec: EndpointSpec, others: Sequence[EndpointSpec]) -> str:
    """Return what the fleet calls an endpoint's gate: its address, with its name where several have that address."""
    address = endpoint_of(settings_of(settings, spec))
    addresses = [endpoint_of(settings_of(settings, other)) for other in others]
    return f"{address} ({spec.name})" if addresses.count(address) > 1 else address
