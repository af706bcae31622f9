"""Modules and functions fit in the head."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_MODULE, LONGEST_FUNCTION = 350, 50


def test_nothing_is_too_long() -> None:
    """No module has more than 350 lines, and no function more than 50."""
    wrong = []
    for folder in ("streams", "consumers", "producers", "infra"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name, text = path.relative_to(ROOT), path.read_text()
            if (lines := text.count("\n")) > LONGEST_MODULE:
                wrong.append(f"{name}: {lines} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > LONGEST_FUNCTION:
                        wrong.append(f"{name}: {node.name} has {length} lines")
    assert wrong == []
