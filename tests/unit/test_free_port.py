"""Ports for embedded servers, which something else may want in the moment before they are bound."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.processes import free_port

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not _RANGE.exists(), reason="only Linux says which ports it gives to connections")
def test_no_connection_takes_a_port_before_its_server_does() -> None:
    """A port that is handed out is none that the system gives to an outgoing connection; no two are alike."""
    first, last = map(int, _RANGE.read_text().split())
    ports = [free_port() for _ in range(50)]
    assert not [port for port in ports if first <= port <= last]
    assert len(set(ports)) == len(ports)


def test_processes_that_start_servers_at_the_same_time_draw_different_ports() -> None:
    """Runners of tests and stacks draw before their servers bind: by chance two of them got one port now and then."""
    draw = "from infra.local.processes import free_port; print(*(free_port() for _ in range(30)))"
    drawing = [subprocess.Popen([sys.executable, "-c", draw], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    drawn = [port for process in drawing for port in process.communicate(timeout=60)[0].split()]
    assert len(set(drawn)) == len(drawn) == 4 * 30
