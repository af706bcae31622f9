"""The pipeline's wheel and the transport's: what is in them, and the latter where nothing else of ours is."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
TRANSPORT = ROOT / "streams" / "redis"
PACKAGE = "faust_redis_streams"


@dataclass(frozen=True)
class Wheel:
    """A wheel that was built for this test."""

    path: Path

    @property
    def names(self) -> set[str]:
        with zipfile.ZipFile(self.path) as archive:
            return {name for name in archive.namelist() if ".dist-info/" not in name}

    def described(self, name: str) -> str:
        with zipfile.ZipFile(self.path) as archive:
            (found,) = (one for one in archive.namelist() if one.endswith(f".dist-info/{name}"))
            return archive.read(found).decode()


def build(folder: Path, into: Path) -> Wheel:
    """Build as `make wheels` does."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (path,) = into.glob("*.whl")
    return Wheel(path)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The pipeline's wheel."""
    return build(ROOT, tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The transport's own wheel."""
    return build(TRANSPORT, tmp_path_factory.mktemp("own"))


def files(folder: Path, *kinds: str) -> set[Path]:
    """What is in a folder of the checkout, without what Python leaves there."""
    return {path for kind in kinds for path in folder.rglob(kind) if "__pycache__" not in path.parts}


def test_make_builds_each() -> None:
    """`make wheels` builds the folders that tests build, with what `make install` has installed."""
    rule = re.search(r"^wheels:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None
    built = [line for line in rule[1].splitlines() if "python -m hatchling build -t wheel" in line]
    folders = [found[1] if (found := re.match(r"\tcd (\S+) && ", line)) else "." for line in built]
    assert folders == [".", "streams/redis", "producers/wheel"]


def test_the_pipelines_wheel_leaves_out_benchmarks_and_tests(product: Wheel) -> None:
    """All that runs in production is in it, the SQL and Lua too, and nothing that only a checkout needs."""
    packages = ("streams", "consumers", "producers", "infra")
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in files(ROOT / package, "*.py", "*.sql", "*.lua", "py.typed")
    }
    assert {name.partition("/")[0] for name in product.names} == set(packages)
    left_out = ("infra/bench/", "producers/wheel/")
    assert not [name for name in product.names if name.startswith(left_out)]
    assert {name for name in wanted if not name.startswith(left_out)} <= product.names
    assert "streams/redis/pyproject.toml" not in product.names


def test_the_transports_wheel_is_its_folder(own: Wheel) -> None:
    """Each module and script is in it, under the name of its own, and nothing of the pipeline."""
    wanted = files(TRANSPORT, "*.py", "*.lua", "py.typed")
    assert own.names == {f"{PACKAGE}/{path.relative_to(TRANSPORT).as_posix()}" for path in wanted}


def test_the_transports_wheel_describes_itself(own: Wheel) -> None:
    """It has its own README, licence and requirements, and Faust finds its schemes."""
    about = Parser().parsestr(own.described("METADATA"))
    assert about["Name"] == "faust-redis-streams"
    assert about.get_payload() == (TRANSPORT / "README.md").read_text()
    assert own.described("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    entry_points = re.findall(r"^(\w+) = (\S+)$", own.described("entry_points.txt"), re.MULTILINE)
    assert dict(entry_points) == dict.fromkeys(("redis", "rediss", "unix"), f"{PACKAGE}.transport:Transport")
    product = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(about.get_all("Requires-Dist", [])) <= set(product), "no older version than the pipeline is tested with"


@pytest.mark.parametrize("folder", [".", "streams/redis", "producers/wheel"])
def test_each_wheel_says_what_an_index_shows(folder: str, tmp_path: Path) -> None:
    """Its licence, the Pythons that it is tested on, that it is typed, what it is; and what has changed goes along."""
    wheel = build(ROOT / folder, tmp_path)
    about = Parser().parsestr(wheel.described("METADATA"))
    assert (about["License-Expression"], about.get_all("License-File")) == ("MIT", ["LICENSE"])
    assert wheel.described("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    with zipfile.ZipFile(wheel.path) as archive:
        (changes,) = (name for name in archive.namelist() if name.endswith("/CHANGELOG.md"))
        assert ".dist-info/" in changes
        assert archive.read(changes).decode() == (ROOT / "CHANGELOG.md").read_text()
    pythons = {f"Programming Language :: Python :: {one}" for one in ("3", "3.11", "3.12", "3.13", "3.14")}
    assert pythons | {"Typing :: Typed"} <= set(about.get_all("Classifier", []))
    packages = {name.partition("/")[0] for name in wheel.names}
    assert {f"{one}/py.typed" for one in packages} <= wheel.names
    assert all(about[name] for name in ("Summary", "Keywords", "Requires-Python", "Description-Content-Type"))


def test_the_transport_imports_what_its_wheel_asks_for() -> None:
    """Itself by relative names; beside Python's own, what it requires, and what those are built of."""
    found = {
        (node.module or "").partition(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.partition(".")[0]
        for path in files(TRANSPORT, "*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and node.level == 0) or isinstance(node, ast.Import)
        for alias in node.names
    }
    assert found - sys.stdlib_module_names == {"faust", "redis", "hiredis", "mode", "yarl"}


class Environment:
    """A virtual environment with nothing in it."""

    def __init__(self, folder: Path, of: str = sys.executable) -> None:
        self.programs = folder / "bin"
        uv = shutil.which("uv")
        python = str(self.programs / "python")
        # A pip for each environment, and byte code of modules that nobody imports, are most of what this would cost.
        pip = "install", "--quiet", "--disable-pip-version-check", "--no-compile"
        if uv is None and find_spec("pip") is not None:
            subprocess.run([of, "-m", "venv", "--without-pip", str(folder)], check=True)
            self._install = [sys.executable, "-m", "pip", "--python", python, *pip]
        elif uv is None:
            subprocess.run([of, "-m", "venv", str(folder)], check=True)
            self._install = [python, "-m", "pip", *pip]
        else:
            subprocess.run([uv, "venv", "--quiet", "--python", of, str(folder)], check=True)
            self._install = [uv, "pip", "install", "--quiet", "--python", python]

    def install(self, *what: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._install, *what], check=False, capture_output=True, text=True)


def environment_with(*wheels: Wheel, folder: Path, of: str = sys.executable) -> Environment:
    """Return an environment of a Python with wheels, what they require in the pinned versions, and nothing else."""
    pins = folder / "pins.txt"
    pins.write_text("\n".join(re.findall(r"^[\w.-]+==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)))
    environment = Environment(folder / "venv", of)
    installed = environment.install("--constraint", str(pins), *(str(wheel.path) for wheel in wheels))
    if installed.returncode:
        asked = environment.install("--dry-run", "--no-deps", "--constraint", str(pins), "redis")
        if asked.returncode:
            pytest.skip(f"no package index can be reached: {asked.stderr.strip().splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    return environment


@pytest.fixture(scope="module")
def elsewhere(own: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the transport's wheel alone."""
    return environment_with(own, folder=tmp_path_factory.mktemp("elsewhere"))


def examples() -> list[str]:
    """The README's Python, in order: the app, and sending to it in bulk."""
    return re.findall(r"^```python\n(.*?)^```", (TRANSPORT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@asynccontextmanager
async def running(*command: str | Path, folder: Path) -> AsyncIterator[list[str]]:
    """Run a program, and give the lines that it has printed so far."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed: list[str] = []

    assert process.stdout is not None
    reading = asyncio.create_task(_read(process.stdout, printed))
    try:
        yield printed
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            await process.wait()
        await reading


@pytest.mark.timeout(300)  # installing may take a minute
async def test_the_readmes_app_runs_where_nothing_else_is(
    elsewhere: Environment, redis_url: str, tmp_path: Path
) -> None:
    """In an empty environment beside Faust, `pip install` is all: events come by XADD and in bulk, and are printed."""
    app, sending, *_ = examples()
    assert "127.0.0.1:6379/0" in app
    (tmp_path / "greeter.py").write_text(app.replace("redis://127.0.0.1:6379/0", redis_url))
    indented = "\n".join(f"    {line}" if line else "" for line in sending.splitlines())
    (tmp_path / "send.py").write_text(
        "import asyncio\nfrom greeter import app, greetings\n\nasync def main():\n    names = ['Ada', 'Grace']\n"
        f"{indented}\n    print(len(written))\n    await app.producer.stop()\n\nasyncio.run(main())\n"
    )
    worker = (elsewhere.programs / "faust", "-A", "greeter", "worker", "--without-web", "-l", "info")
    async with running(*worker, folder=tmp_path) as printed, Redis.from_url(redis_url) as client:
        await client.xadd("greetings", {"event": '"hello"'})
        await wait_for(lambda: _heard(printed, "hello"), deadline_s=60, what="the event by XADD to be printed")
        async with running(elsewhere.programs / "python", "send.py", folder=tmp_path) as said:
            await wait_for(lambda: said == ["2"], deadline_s=60, what="two events to be sent")
        await wait_for(lambda: _heard(printed, "hello Grace"), deadline_s=60, what="the events in bulk to be printed")
        assert _heard(printed, "hello Ada")


async def _read(output: asyncio.StreamReader, printed: list[str]) -> None:
    while line := await output.readline():
        printed.append(line.decode().rstrip())


def _heard(printed: list[str], greeting: str) -> bool:
    # Faust's worker logs what an agent prints; without that the line stands alone.
    assert not any("Traceback" in line for line in printed), printed
    return any(line.endswith(greeting) for line in printed)
