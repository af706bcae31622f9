"""Processes are measured in CPU seconds and memory, a server's own children included."""

from collections.abc import Mapping
from contextlib import suppress

import psutil

_MEGABYTE = 1_000_000


class Usage:
    """Samples the use of named processes.

    Call `sample` now and then: memory has peaks, and CPU seconds are lost with a process.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        """Take the first sample."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._peak_mb: dict[str, float] = dict.fromkeys(pids, 0.0)
        self._cpu_s: dict[tuple[str, int], float] = {}
        self.sample()
        self._cpu_before = self._cpu_by_name()

    def sample(self) -> None:
        """Look at every process."""
        for name, process in self._processes.items():
            family = [process, *process.children(recursive=True)]
            memory = 0.0
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    times = member.cpu_times()
                    self._cpu_s[name, member.pid] = times.user + times.system
                    # Members of a family share memory, so only the sum of their shares is what they take.
                    memory += member.memory_info().rss if len(family) == 1 else member.memory_full_info().pss
            self._peak_mb[name] = max(self._peak_mb[name], memory / _MEGABYTE)

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each name has used since the first sample."""
        return {name: seconds - self._cpu_before[name] for name, seconds in self._cpu_by_name().items()}

    def peak_mb(self) -> dict[str, float]:
        """Return the most memory that each name was seen to take, in megabytes."""
        return self._peak_mb

    def _cpu_by_name(self) -> dict[str, float]:
        return {
            name: sum(seconds for (owner, _), seconds in self._cpu_s.items() if owner == name)
            for name in self._processes
        }
