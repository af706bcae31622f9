"""What each process loads to run: its own part of the pipeline, and no library of another's."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from streams.jobs.stages import GENERATION, STAGES, ConsumerGroup

_LOADED = "import sys; from importlib import import_module; import_module(sys.argv[1]); print(*sys.modules)"
# A worker's command up to where all is loaded, and the process that stages are forked from up to its first fork.
_READY = """
import json, os, sys, threading
from contextlib import suppress
import infra.garbage

def open_files():
    for number in range(3, 100):
        with suppress(OSError):
            os.fstat(number)
            yield number

def told():
    threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    print(json.dumps({"modules": [*sys.modules], "threads": threads, "files": [*open_files()]}))
    sys.exit()

infra.garbage.spare_what_stays = told
from infra.cli import app
app(["worker", *sys.argv[1:]])
"""
# Of stages in processes of their own: what each child has loaded by itself when its app is made.
_LATE = """
import json, os, signal, sys
import infra.garbage

before = set()

def told():
    if not before:
        before.update(sys.modules)
        return
    os.write(1, json.dumps([*sys.modules.keys() - before]).encode() + b"\\n")
    os.kill(os.getppid(), signal.SIGTERM)
    os._exit(0)

infra.garbage.spare_what_stays = told
from infra.cli import app
app(["worker", "all", "--processes"])
"""
# Of migrations, of HTTP, of the command line, of the console's pages, and of calls to an LLM.
_OTHERS = {
    "sqlalchemy",
    "alembic",
    "fastapi",
    "starlette",
    "uvicorn",
    "typer",
    "jinja2",
    "markdown_it",
    "jwt",
    "jsonschema",
}
_LLM = {"openai", "httpx2"}


def _loaded(module: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", _LOADED, module], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_a_stage_loads_no_other(stage: ConsumerGroup) -> None:
    """Nor what commands, migrations and the API are made of; one stage alone loads the LLM's client."""
    loaded = _loaded(stage.module)
    others = {one.module.rpartition(".")[0] for one in STAGES if one is not stage}
    assert not loaded & others
    top = {name.partition(".")[0] for name in loaded}
    assert not top & (_OTHERS if stage.name == GENERATION else _OTHERS | _LLM)


def test_an_api_without_the_console_loads_none() -> None:
    """Nor what its pages are made with, the LLM's client, or what migrates: it would hold them as long as it runs."""
    loaded = _loaded("infra.api.server")
    assert "infra.console" not in loaded
    top = {name.partition(".")[0] for name in loaded}
    assert not top & {"jinja2", "markdown_it", "sqlalchemy", "alembic", "typer", *_LLM}


def _told(program: str, *arguments: str) -> list[Any]:
    given = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, env=os.environ | given
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("arguments", [[stage.name] for stage in STAGES] + [["all"], ["all", "--processes"]])
def test_a_worker_loads_nothing_for_what_it_never_does(arguments: list[str]) -> None:
    """Neither tracebacks for a terminal, where its log is none, nor a library's metrics, nor traces that are off."""
    top = {name.partition(".")[0] for name in _told(_READY, *arguments)[0]["modules"]}
    assert "structlog" in top
    assert "redis" in top
    assert not top & {"rich", "pygments", "opentelemetry"}


def test_nothing_that_a_fork_would_break_is_there_before_it() -> None:
    """No thread, of which a child has none, and no connection or event loop, which it would share with its siblings."""
    (ready,) = _told(_READY, "all", "--processes")
    assert {stage.module for stage in STAGES} <= {*ready["modules"]}
    assert ready["threads"] == []
    assert ready["files"] == []


def test_forked_stages_load_nothing_by_themselves() -> None:
    """Each would have a copy of its own, where all could share one: `_LOADED_LATE` names it."""
    late = _told(_LATE)
    assert late
    assert {name for loaded in late for name in loaded} == set()
