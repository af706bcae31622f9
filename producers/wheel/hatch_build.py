"""The client's wheel has copies of the modules that the client imports.

All are below one package: a service gets no top-level package called `infra` or `streams`. Hatch runs this.
"""

import ast
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_OURS: Final = ("infra", "producers", "streams")
_ROOTS: Final = ("producers.blocking", "producers.client")
_PARTS: Final = "teamfit_client._parts"
_IMPORT: Final = re.compile(rf"^(\s*from )(?=({'|'.join(_OURS)})\.)", re.MULTILINE)
_FRONT: Final = f'''"""The client for services that put requests straight into the TEAMFIT pipeline's stream."""

from {_PARTS}.producers import client as _client
from {_PARTS}.producers.blocking import BlockingJobRequests
from {_PARTS}.producers.client import *

__all__ = ["BlockingJobRequests"]
__all__ += _client.__all__
'''


class ClientBuildHook(BuildHookInterface):  # type: ignore[type-arg] # its argument is of no use to a hook
    """It writes the package into a folder, which Hatch puts into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - as Hatch calls it
        """Write the package before the wheel is put together."""
        self._folder = Path(tempfile.mkdtemp())
        package = self._folder / "teamfit_client"
        repository = Path(self.root).parents[1]
        for path in _modules(repository):
            copy = package / "_parts" / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_IMPORT.sub(rf"\1{_PARTS}.", (repository / path).read_text()))
        (package / "_parts" / "__init__.py").write_text(
            '"""Copies of the pipeline\'s modules; not for direct use."""\n'
        )
        (package / "__init__.py").write_text(_FRONT)
        (package / "py.typed").touch()
        build_data["force_include"][str(package)] = "teamfit_client"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - the same
        """Remove what was written."""
        shutil.rmtree(self._folder)


def _modules(repository: Path) -> set[Path]:
    """Return the files of the client, of all that it imports, and of the packages that these are in."""
    found: set[Path] = set()
    waiting = [_file(repository, name) for name in _ROOTS]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += [folder / "__init__.py" for folder in path.parents if folder != Path()]
        waiting += [_file(repository, name) for name in _imported(repository / path, path)]
    return found


def _imported(file: Path, path: Path) -> list[str]:
    """Return the modules of ours that a file imports; relative names are those of its package."""
    package = path.parent.as_posix().replace("/", ".")
    imports = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom))
    names = (f"{package}.{node.module}" if node.level else str(node.module) for node in imports)
    return [name for name in names if name.partition(".")[0] in _OURS]


def _file(repository: Path, module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if (repository / path).is_dir() else path.with_suffix(".py")
