"""This list names who is measured. A module of its own says what each is set to, and why.

Each peer has a virtual environment: installed into one, they would silently downgrade each other.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
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


INSTALL_S = 180
DEFAULT = Path(tempfile.gettempdir()) / "transport-bench-environments"


class NotInstalled(RuntimeError):
    """A peer's requirements could not be had; the message is the installer's last line."""


def environment(peer: str, requirements: Path, folder: Path) -> Path:
    """Return the peer's Python. Its environment is made when it is missing or its requirements have changed.

    Raises:
        NotInstalled: the installer failed.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = folder / f"{peer}-{digest}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            _install(home, python, requirements)
        except subprocess.SubprocessError as error:
            output = getattr(error, "stderr", None) or str(error)
            raise NotInstalled(str(output).strip().splitlines()[-1]) from error
        (home / "complete").touch()
    return python


def _install(home: Path, python: Path, requirements: Path) -> None:
    # uv takes a tenth of pip's time, where it is there.
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    venv.create(home, with_pip=uv is None)
    installer = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    subprocess.run(  # noqa: S603 - a package installer with our own file
        [*installer, "--quiet", "-r", str(requirements)], check=True, capture_output=True, text=True, timeout=INSTALL_S
    )
