"""Runners that start together where nothing is compiled yet share the compiling."""

import compileall
import sys
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, assertstate_key, get_cache_dir, try_makedirs

_ROOT = Path(__file__).parents[1]
_FOLDERS = ("consumers", "infra", "producers", "streams", "tests")


def share_the_compiling(config: pytest.Config, *, runner: int, runners: int) -> None:
    """Compile what is not compiled. Each runner begins elsewhere, and leaves out what another has done by then.

    All of them load the same modules in the same order, so each would compile each: a minute of CPU in a fresh clone.
    """
    if sys.dont_write_bytecode:
        return
    files = sorted(file for folder in _FOLDERS for file in (_ROOT / folder).rglob("*.py"))
    first = len(files) * runner // runners
    for file in files[first:] + files[:first]:
        if file.name.startswith("test_") or file.name == "conftest.py":
            _compile_with_asserts(config, file)
        else:
            compileall.compile_file(file, quiet=2)


def _compile_with_asserts(config: pytest.Config, file: Path) -> None:
    """Do what pytest does with a module of tests before it runs it (`AssertionRewritingHook.exec_module` of 9.2)."""
    folder = get_cache_dir(file)
    compiled = folder / (file.stem + PYC_TAIL)
    if not compiled.exists() and try_makedirs(folder):
        source_hash, code = _rewrite_test(file, config)
        _write_pyc(config.stash[assertstate_key], code, source_hash, compiled)
