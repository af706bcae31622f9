"""What an operator changes stands in the log of actions: a new operation that forgets it is found here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPERATIONS = sorted((ROOT / "infra" / "operations").glob("*.py"))
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\b")
_NAME = re.compile(r"^-- name: (\w+)", re.MULTILINE)
# What logs: `acting` itself, and what calls it.
_LOGGING = ("acting(", "_writing(")


def _writing(module: Path) -> set[str]:
    """Return the names of a module's statements that write."""
    file = module.with_suffix(".sql")
    if not file.exists():
        return set()
    parts = _NAME.split(file.read_text())[1:]
    return {name for name, text in zip(parts[::2], parts[1::2], strict=True) if _WRITES.search(_uncommented(text))}


def _uncommented(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


def _functions(module: Path) -> Iterator[tuple[str, str, bool]]:
    """Give each function's name, its text, and whether its caller has the transaction."""
    source = module.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef):
            arguments = {one.arg for one in node.args.args}
            yield node.name, ast.get_source_segment(source, node) or "", "connection" in arguments


def test_every_operation_that_writes_is_logged() -> None:
    """Each function with a transaction of its own, and a statement that writes, logs in that transaction."""
    forgotten, logged = [], 0
    for module in OPERATIONS:
        writing = _writing(module)
        for name, text, in_callers in _functions(module):
            if in_callers or not any(re.search(rf"\b_?queries\.{one}\b", text) for one in writing):
                continue
            if any(how in text for how in _LOGGING):
                logged += 1
            else:
                forgotten.append(f"{module.name}: {name}")
    assert forgotten == []
    assert logged >= 9
