"""What a command loads before it runs: its help must be there at once."""

import subprocess
import sys

import pytest

_HELP_OF = """
import sys
from infra.cli import app
try:
    app(sys.argv[1:], prog_name="teamfit")
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""
_HEAVY = {"faust", "fastapi", "asyncpg", "aiosql", "sqlalchemy", "openai", "aiohttp", "redis", "structlog", "uvicorn"}
_SHARED = {"infra", "infra.cli", "infra.garbage"} | {
    f"infra.cli.{name}" for name in ("errors", "loading", "options", "output")
}

_ALL_MODULES = """
import sys
from importlib import import_module
from infra import cli
for name in {*cli._MODULES.values()}:
    import_module(f"infra.cli.{name}")
print("Usage: teamfit", "all")
print(*sorted(sys.modules), file=sys.stderr)
"""


def _loaded(*arguments: str, program: str = _HELP_OF) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith("Usage: teamfit")
    return set(done.stderr.split())


@pytest.mark.parametrize("command", ["", "lag", "job show", "failed list", "replay apply", "organization add", "up"])
def test_help_loads_nothing_that_a_command_needs_to_run(command: str) -> None:
    """No driver, no framework, no stage; and the pipeline's own modules are those of the command alone."""
    loaded = _loaded(*command.split(), "--help")
    assert not {name.partition(".")[0] for name in loaded} & (_HEAVY | {"consumers", "producers", "streams"})
    ours = {name for name in loaded if name.partition(".")[0] == "infra"} - _SHARED
    assert all(name.startswith("infra.cli.") for name in ours), ours
    assert len(ours) == 1 or not command, ours


def test_no_module_of_commands_loads_what_a_command_needs_to_run() -> None:
    """All of them together are as light: whichever help is asked for, it is there at once."""
    loaded = {name.partition(".")[0] for name in _loaded(program=_ALL_MODULES)}
    # What a server, a driver or a page is made of, and what alone takes longer to load than a help should.
    heavy = _HEAVY | {"aiokafka", "alembic", "httpx2", "jinja2", "jwt", "cryptography", "opentelemetry"}
    assert not loaded & (heavy | {"consumers", "producers", "streams", "yaml"})
