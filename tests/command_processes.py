"""Commands that run to their end, each in a copy of a process that has loaded them.

A copy has output, an environment, a folder and an exit code of its own, as a process that is started has; to load
everything takes a hundred times as long as most commands.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

_COPIES = """
import gc, json, os, pkgutil, sys, tempfile, traceback
from importlib import import_module
import infra.api.server, infra.local.stack, infra.migrations, infra.operations
import infra.cli

for package in (infra.cli, infra.operations):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name != "infra.cli.__main__":
            import_module(module.name)
answers = os.fdopen(os.dup(1), "w")
gc.freeze()

def run(arguments, folder, environment):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        infra.cli.app(arguments, prog_name="teamfit")
    except SystemExit as end:
        return end.code or 0
    except Exception:
        traceback.print_exc()
    return 1

for line in sys.stdin:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            code = run(*json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told = [code]
        for file in (output, errors):
            file.seek(0)
            told.append(file.read().decode())
    print(json.dumps(told), file=answers, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    output: str
    errors: str


class CommandProcesses:
    """The loaded process, and a copy of it for each command."""

    def __init__(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COPIES],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._turn = Lock()

    def run(self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> Ended:
        """Run `teamfit` in a folder, with more environment variables than this process has."""
        process: Any = self._process
        with self._turn:
            asked = json.dumps([[*arguments], str(folder), {**os.environ, **environment}])
            process.stdin.write(f"{asked}\n".encode())
            process.stdin.flush()
            told = process.stdout.readline()
        assert told, "the process of commands has ended"
        return Ended(*json.loads(told))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
