"""Wall clocks that can be stepped, for single processes: each runs with libfaketime, which reads an offset from a file.

Only the wall clock steps, as on a real machine; the monotonic one goes on.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where libfaketime leaves a file and a semaphore for each process


def library() -> Path | None:
    """Return the library that is to be preloaded, or None where the package is not installed."""
    with suppress(PackageNotFoundError):
        for file in files("libfaketime") or ():
            if file.name == "libfaketime.so.1":
                return Path(str(file.locate()))
    return None


class Clocks:
    """The clocks of processes that are started with `environment`."""

    def __init__(self, folder: Path, preload: Path) -> None:
        """Begin with right clocks.

        Args:
            folder: where the offsets are kept; every account that a process runs as must be able to read it.
            preload: the library.
        """
        self._folder = folder
        self._preload = preload
        self._before = _left_behind()

    def environment(self, process: str) -> Mapping[str, str]:
        """Return what a process needs in its environment to have a clock of its own; a restart keeps it."""
        self.step(process, timedelta())
        return {
            "LD_PRELOAD": str(self._preload),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(process)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # the times of files are the machine's
        }

    def step(self, process: str, offset: timedelta) -> None:
        """Set a process's clock to the machine's and an offset, from its next look at it on."""
        file = self._file(process)
        new = file.with_suffix(".new")
        new.write_text(f"{offset.total_seconds():+.0f}\n")
        new.chmod(0o644)
        new.replace(file)  # a reader sees the old offset or the new one, never half of it

    def clean(self) -> None:
        """Remove what the library has left behind of processes that were killed; for when all have ended."""
        for file in _left_behind() - self._before:
            file.unlink(missing_ok=True)

    def _file(self, process: str) -> Path:
        return self._folder / f"{process}.offset"


def _left_behind() -> set[Path]:
    return {file for file in _SHARED_MEMORY.glob("*faketime_s*_*") if not _lives(file.name.rpartition("_")[2])}


def _lives(pid: str) -> bool:
    return Path("/proc", pid).exists()
