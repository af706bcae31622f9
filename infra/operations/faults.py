"""A fault says what is wrong, where it is mended, and where that is written."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consumers.generation.fleet import HeldEndpoint
from consumers.generation.fleet_gate import FleetGate
from infra.operations.controls import Process
from infra.operations.stages import StageNow

_LLM: Final = "The LLM is down or limits us"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something is wrong.

    Attributes:
        says: what, in a sentence.
        page: the console's page on which it is mended, or looked into.
        section: of docs/operating.md.
        detail: the words of a provider or of an operator.
    """

    says: str
    page: str
    section: str
    detail: str | None = None


def faults_of(
    stages: Sequence[StageNow],
    *,
    broker: str | None,
    unread: Iterable[str],
    gone: Sequence[Process],
    gates: Iterable[FleetGate],
    holds: Iterable[HeldEndpoint],
    standing: str | None,
    unmet: Iterable[Mapping[str, Any]],
    failing_tasks: Iterable[str],
) -> list[Fault]:
    """Return what is wrong, the cause before what may follow from it."""
    found = [] if broker is None else [Fault(broker, "/streams", "The broker is down")]
    found += [Fault(f"{one.endpoint} ({one.model}) is not called", "/workers", _LLM, one.sentence) for one in holds]
    found += [
        Fault(f"The gate of {one.endpoint} is closed for {_seconds(one)} s", "/workers", _LLM, one.reason)
        for one in gates
    ]
    found += [fault for stage in stages if (fault := _of_stage(stage)) is not None]
    for one in gone:
        says = f"The {one.kind} {one.process[:8]} on {one.host} ({', '.join(one.stages)}) ended without a word"
        found.append(Fault(says, "/workers", "A worker died or hangs"))
    found += [Fault(sentence, "/streams", "The backlog grows") for sentence in unread]
    if standing is not None:
        found.append(Fault(standing, "/jobs?status=pending&order=oldest", "A job stands still"))
    found += _of_checks(unmet)
    found += [Fault(f"The periodic task {one}", "/schedule", "A bad deploy") for one in failing_tasks]
    return found


def _of_stage(stage: StageNow) -> Fault | None:
    match stage.state:
        case "absent":
            waiting = f"; {stage.waiting} entries wait" if stage.waiting else ""
            return Fault(f"No worker of {stage.name} lives{waiting}", "/workers", "A worker died or hangs")
        case "stalled":
            return Fault(f"{stage.name} has work, and does not move", "/streams", "The backlog grows")
        case "held":
            return Fault(f"{stage.name} is held", "/workers", "A job stands still", "; ".join(stage.held))
        case _:
            return None


def _of_checks(unmet: Iterable[Mapping[str, Any]]) -> Iterator[Fault]:
    for one in unmet:
        says = f"teamfit verify: {one['name']} did not hold for {one['violations']}. {one['next_step']}"
        yield Fault(says, "/failed", "Where to look")


def _seconds(gate: FleetGate) -> int:
    return round(gate.closed_for.total_seconds())
