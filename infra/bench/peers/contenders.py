"""Who is measured. What each is set to, and why, stands in its own module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["ours", "peer", "raw"]

_REQUIREMENTS = Path(__file__).with_name("requirements")


@dataclass(frozen=True)
class Contender:
    """One row of the comparison.

    `jobs` is what it drains, about a second or two of its work on two cores. Several rows may share a module; only one
    of them sends, and only those that hand over jobs one by one are paced.
    """

    name: str
    module: str
    jobs: int
    variant: str = ""
    batch: bool = False
    sends: bool = True

    @property
    def requirements(self) -> Path | None:
        """Return the file of its virtual environment's requirements; None if it runs in this one."""
        path = _REQUIREMENTS / f"{self.module}.txt"
        return path if path.exists() else None

    @property
    def kind(self) -> Kind:
        """Return its role: our transport, a peer, or a denominator."""
        return "ours" if self.module == "own" else "raw" if self.module == "raw" else "peer"

    @property
    def paced(self) -> bool:
        """Return true if its latency is measured."""
        return not self.batch and self.kind != "raw"


RAW = Contender("raw redis-py, an XACK each in a pipeline", "raw", 100_000, "pipeline")

CONTENDERS = (
    RAW,
    Contender("raw redis-py, one XACK for 500", "raw", 200_000, "variadic", batch=True, sends=False),
    Contender("this transport, event by event", "own", 60_000, "events"),
    Contender("this transport, noack and ack", "own", 60_000, "acks", sends=False),
    Contender("this transport, stream.take(500)", "own", 100_000, "batches", batch=True, sends=False),
    Contender("FastStream, batches of 500", "faststream", 100_000, "batch", batch=True, sends=False),
    Contender("FastStream", "faststream", 6_000, "single"),
    Contender("dramatiq", "dramatiq", 8_000),
    Contender("taskiq streams", "taskiq", 6_000),
    Contender("saq", "saq", 4_000),
    Contender("arq", "arq", 3_000),
    Contender("streaq", "streaq", 2_500),
    Contender("Celery", "celery", 2_000),
    Contender("docket", "docket", 1_500),
)

PEERS = tuple(dict.fromkeys(contender.module for contender in CONTENDERS if contender.requirements))
