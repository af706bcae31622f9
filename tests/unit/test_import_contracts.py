"""The import contracts name every room of `infra`, so that a new file cannot stand outside of them."""

import re
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_CONTRACTS = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_a_folder_of_infra_is_top_and_a_loose_file_is_ground() -> None:
    """Migrations excepted: what the ground's Postgres needs stands on the ground."""
    whole, rooms = (one["layers"] for one in _CONTRACTS[:2])
    folders = {path.parent.name for path in (_ROOT / "infra").glob("*/__init__.py")} - {"migrations"}
    files = {path.stem for path in (_ROOT / "infra").glob("*.py")} - {"__init__"} | {"migrations"}
    top, ground = _names(whole[0]), _names(whole[-1])
    assert (top, ground) == (folders, files)
    assert (_names(" ".join(rooms[:-1])), _names(rooms[-1])) == (folders, files)


def _names(layer: str) -> set[str]:
    return {name.removeprefix("infra.") for name in re.findall(r"[\w.]+", layer)}
