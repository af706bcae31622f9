"""A thousand entries that no honest sender writes: each hostile value in each kind of place, for each topic."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from streams.jobs.events import JobId, fact_id
from tests.hostile import HOSTILE_BYTES, HOSTILE_HEADER_NAMES, HOSTILE_NUMBERS, HOSTILE_TEXTS, HOSTILE_TIMES

CASES: Final = Path(__file__).parent / "hostile_cases"

_TYPES: Final = {
    "job-requests": ("requested", "cancel-requested"),
    "job-events": ("started", "progressed", "completed", "failed", "rejected", "cancelled"),
    "job-accepted": ("accepted",),
    "job-accepted-priority": ("accepted",),
    "dead-letters": ("requested", "accepted"),
}
TOPICS: Final = tuple(_TYPES)
_DATA: Final[dict[str, dict[str, object]]] = {
    "requested": {"team_id": "", "requirements": "An hour outdoors"},
    "accepted": {"team_id": "", "requirements": "An hour outdoors"},
    "cancel-requested": {"reason": "hostile"},
    "started": {"attempt": 1},
    "progressed": {"step": "hostile"},
    "completed": {"model": "m", "prompt_tokens": 1, "completion_tokens": 1},
    "failed": {"code": "timeout", "error_message": "hostile"},
    "rejected": {"code": "quota_exceeded", "message": "hostile"},
    "cancelled": {"reason": "hostile"},
}
_ATTRIBUTES: Final = (
    *("id", "source", "type", "subject", "specversion", "datacontenttype", "data", "data_base64"),
    *("traceparent", "tracestate", "idempotencykey", "run", "time", "extension"),
)
_TIMES: Final = ("time", "data.run_at")


@dataclass(frozen=True, slots=True)
class BadEntry:
    """One entry, as XADD takes it.

    Attributes:
        kind: what is wrong with it, for people.
        job_id: the job that its event names, if that can be read.
        forged: whether its event is well formed, and not its sender's to write.
    """

    kind: str
    topic: str
    fields: tuple[bytes, ...]
    job_id: UUID | None = None
    forged: bool = False

    @property
    def key(self) -> bytes | None:
        """The entry's key."""
        return self._by_name().get(b"key")

    @property
    def event(self) -> bytes | None:
        """The entry's value."""
        fields = self._by_name()
        return fields.get(b"event", fields.get(b"data")) or None

    def _by_name(self) -> dict[bytes, bytes]:
        return dict(zip(self.fields[::2], self.fields[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Sender:
    """An organization that writes such entries."""

    organization_id: str
    team_id: str

    def event(self, kind: str, job_id: UUID, run: int = 1) -> dict[str, Any]:
        """Return a well-formed event about a job of its own."""
        data = {"organization_id": self.organization_id, **_DATA[kind]}
        if "team_id" in data:
            data["team_id"] = self.team_id
        return {
            "specversion": "1.0",
            "type": f"teamfit.job.{kind}.v1",
            "id": fact_id(JobId(job_id), run, kind),
            "source": "hostile",
            "subject": str(job_id),
            "time": datetime.now(UTC).isoformat(),
            "run": run,
            "data": data,
        }


def bad_entries(senders: Sequence[Sender]) -> list[BadEntry]:
    """Return the whole table, shared out among senders and mixed, the same each time but for the jobs' IDs."""
    who = itertools.cycle(senders)
    tables = [
        list(table(topic, who)) for topic in TOPICS for table in (_values, _binary_mode, _headers, _bytes, _layouts)
    ]
    return [entry for row in itertools.zip_longest(*tables) for entry in row if entry is not None]


def _values(topic: str, who: Iterator[Sender]) -> Iterator[BadEntry]:
    """Yield structured events with one hostile value each, in two places for each value."""
    kinds = itertools.cycle(_TYPES[topic])
    places = itertools.cycle(_ATTRIBUTES)
    for value in (*HOSTILE_TEXTS, *HOSTILE_NUMBERS, *HOSTILE_TIMES):
        for turn in range(2):
            sender, kind, job_id = next(who), next(kinds), uuid4()
            event = sender.event(kind, job_id)
            inner = [f"data.{name}" for name in event["data"]]
            place = inner[len(str(value)) % len(inner)] if turn else next(places)
            if value in HOSTILE_TIMES:
                place = _TIMES[turn]
            _put(event, place, value)
            named = None if place == "subject" else job_id
            yield _entry(f"{place} = {value!r:.40}", topic, json.dumps(event).encode(), named)


def _put(event: dict[str, Any], place: str, value: object) -> None:
    outer, _, inner = place.rpartition(".")
    (event[outer] if outer else event)[inner] = value


def _binary_mode(topic: str, who: Iterator[Sender]) -> Iterator[BadEntry]:
    """Yield events in the binary mode, with a hostile text as one header's value."""
    kinds = itertools.cycle(_TYPES[topic])
    names = itertools.cycle(("id", "source", "time", "type", "subject", "specversion", "run", "extension"))
    for value in (*HOSTILE_TEXTS, *HOSTILE_TIMES):
        kind, job_id, name = next(kinds), uuid4(), next(names)
        event = next(who).event(kind, job_id)
        data = json.dumps(event.pop("data")).encode()
        headers = {f"ce_{part}".encode(): str(one).encode() for part, one in event.items()}
        headers[f"ce_{name}".encode()] = value.encode(errors="surrogatepass")
        fields = [part for pair in headers.items() for part in pair]
        named = None if name == "subject" else job_id
        yield BadEntry(
            f"ce_{name} = {value!r:.40}", topic, (b"key", str(job_id).encode(), *fields, b"data", data), named
        )


def _headers(topic: str, who: Iterator[Sender]) -> Iterator[BadEntry]:
    """Yield well-formed events, and `{}`, with hostile names and values of headers."""
    kinds = itertools.cycle(_TYPES[topic])
    values = itertools.cycle((b"1", b"nobody", *HOSTILE_BYTES[:-1]))
    for name in HOSTILE_HEADER_NAMES:
        for well_formed in (True, False):
            job_id, value, kind = uuid4(), next(values), next(kinds)
            event = json.dumps(next(who).event(kind, job_id)).encode() if well_formed else b"{}"
            yield _entry(f"h:{name!r:.40} = {value!r:.20}", topic, event, job_id, b"h:" + name, value)
    for value in HOSTILE_BYTES[:-1]:
        job_id = uuid4()
        event = json.dumps(next(who).event(next(kinds), job_id)).encode()
        forged = topic in {"job-events", "job-accepted", "job-accepted-priority"}
        yield replace(_entry(f"h:x = {value!r:.20}", topic, event, job_id, b"h:x", value), forged=forged)


def _bytes(topic: str, who: Iterator[Sender]) -> Iterator[BadEntry]:
    """Yield bytes that are no event, and keys of any bytes."""
    kinds = itertools.cycle(_TYPES[topic])
    for value in HOSTILE_BYTES:
        yield _entry(f"event = {value!r:.40}", topic, value, uuid4())
        job_id = uuid4()
        event = json.dumps(next(who).event(next(kinds), job_id)).encode()
        yield BadEntry(f"key = {value!r:.40}", topic, (b"key", value, b"event", event), job_id)


def _layouts(topic: str, who: Iterator[Sender]) -> Iterator[BadEntry]:
    """Yield entries whose fields are not those that an entry has."""
    key = str(uuid4()).encode
    event = json.dumps(next(who).event(_TYPES[topic][0], uuid4())).encode
    many = [part for number in range(2_000) for part in (f"h:{number}".encode(), b"1")]
    layouts: dict[str, tuple[bytes, ...]] = {
        "a NUL in a header's name": (b"key", key(), b"event", b"{}", b"h:\x00", b"1"),
        "no event": (b"key", key()),
        "an empty event": (b"key", key(), b"event", b""),
        "neither key nor event": (b"\0", b"\0"),
        "an empty field": (b"key", key(), b"", b""),
        "names in capitals": (b"KEY", key(), b"EVENT", event()),
        "two events": (b"key", key(), b"event", b"{}", b"event", b"[]"),
        "two keys": (b"key", b"a", b"key", key(), b"event", b"{}"),
        "thousands of headers": (b"key", key(), b"event", b"{}", *many),
        "event and data": (b"key", key(), b"event", b"{}", b"data", b"[]", b"ce_type", b"\xff"),
        "data alone": (b"key", key(), b"data", b"\xff"),
        "a header of no name": (b"key", key(), b"event", b"{}", b"h:", b""),
        "binary mode of nothing": (b"key", key(), b"ce_specversion", b"1.0", b"ce_type", b"\0"),
        **{
            f"ts = {ts!r:.30}": (b"key", key(), b"event", b"{}", b"ts", ts)
            for ts in (b"", b"-1", b"NaN", b"9" * 15, b"9" * 400, b"0", b"\xff")
        },
    }
    for name, fields in layouts.items():
        yield BadEntry(name, topic, fields)


def _entry(kind: str, topic: str, event: bytes, job_id: UUID | None, *fields: bytes) -> BadEntry:
    key = str(job_id or uuid4()).encode()
    return BadEntry(kind, topic, (b"key", key, b"event", event, *fields), job_id)


def cases() -> dict[UUID, BadEntry]:
    """Return the kept cases of what strangers write to `job-requests`, each about a job of its own."""
    entries = {}
    for path in sorted(CASES.glob("*.job-requests.json")):
        job_id = uuid4()
        event = json.loads(path.read_text()) | {"subject": str(job_id)}
        if event["id"].startswith("<uuid5("):
            event["id"] = fact_id(JobId(job_id), 1, "completed")
        entries[job_id] = _entry(path.name, "job-requests", json.dumps(event).encode(), job_id)
    return entries
