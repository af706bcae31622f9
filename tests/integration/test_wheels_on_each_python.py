"""The wheels for others' environments work on each Python that they promise, as far as this machine has it."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from streams.jobs.job_ids import job_id_for
from tests.integration.test_client_wheel import examples, run
from tests.integration.test_wheels import ROOT, TRANSPORT, Environment, Wheel, build, environment_with

_FOLDERS = (TRANSPORT, ROOT / "producers" / "wheel")
_PROMISES = (ROOT, *_FOLDERS)


def promised() -> list[str]:
    """The versions that a wheel's classifiers name."""
    (one, *others) = (tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in _PROMISES)
    found = re.findall(r"Python :: (3\.\d+)\b", "\n".join(one["classifiers"]))
    for other in others:
        assert found == re.findall(r"Python :: (3\.\d+)\b", "\n".join(other["classifiers"]))
    return found


def python(version: str) -> str:
    """Return a Python of this version: of the PATH, where a pyenv shim may stand for none, or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for one in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))):
        if (
            one is not None
            and subprocess.run([str(one), "-c", "import venv"], check=False, capture_output=True).returncode == 0
        ):
            return str(one)
    pytest.skip(f"no Python {version} on this machine")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Wheel]:
    """The transport's and the client's."""
    return [build(folder, tmp_path_factory.mktemp("wheel")) for folder in _FOLDERS]


@pytest.fixture(params=promised())
def environment(request: pytest.FixtureRequest, wheels: list[Wheel], tmp_path: Path) -> Environment:
    """An environment of one Python with both."""
    return environment_with(*wheels, folder=tmp_path, of=python(request.param))


def test_the_promise_is_the_pipelines() -> None:
    """From the oldest that it requires to the newest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={promised()[0]}"
    assert promised() == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.timeout(600)  # installing may take minutes on a busy machine
async def test_both_work_where_nothing_else_is(environment: Environment, redis_url: str, tmp_path: Path) -> None:
    """The client sends what its README says, and Faust finds the transport by its scheme."""
    sending, *_ = examples(tmp_path)
    assert await run(environment, sending, BROKER_URL=redis_url) == [str(job_id_for("acme", "offsite-2031"))]
    finds = "import faust\nprint(faust.App('an-app', broker='redis://localhost').transport.__class__.__module__)\n"
    (tmp_path / "finds.py").write_text(finds)
    assert await run(environment, tmp_path / "finds.py") == ["faust_redis_streams.transport"]
