"""What each process loads to run: its own part of the pipeline, and no library of another's."""

import subprocess
import sys

import pytest

from streams.jobs.stages import GENERATION, STAGES, ConsumerGroup

_LOADED = "import sys; from importlib import import_module; import_module(sys.argv[1]); print(*sys.modules)"
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
