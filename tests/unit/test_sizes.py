"""Modules and functions fit in the head."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_MODULE, LONGEST_FUNCTION, SHORTEST_MODULE = 350, 50, 30
FOLDERS = ("streams", "consumers", "producers", "infra")
# Whoever looks for something has to look into each module, so a small one has a reason to be one.
SMALL = {
    **{f"consumers/{stage}/worker.py": "the registry of stages names it" for stage in ("failures", "projection")},
    "infra/api/leaving.py": "the app and the server, which imports the app, meet here",
    "infra/api/openapi_file.py": "`python -m infra.api.openapi_file` runs it",
    "infra/api/routes/overview.py": "one route for one operation",
    "infra/cli/__main__.py": "`python -m infra.cli` runs it",
    "infra/cli/loading.py": "two modules of commands use it before they load anything else",
    "infra/garbage.py": "the help of each command loads it, and nothing else of ours",
    "infra/local/environment.py": "tests start processes with it, without the local stack",
    "infra/migrations/sql.py": "each migration calls it",
    "producers/job_ids.py": "services import it under this name",
}


def test_nothing_is_too_long() -> None:
    """No module has more than 350 lines, and no function more than 50."""
    wrong = []
    for folder in FOLDERS:
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


def test_a_small_module_has_a_reason() -> None:
    """What is shorter than 30 lines stands with what changes for the same reason, or says why not."""
    small = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            is_other = path.name == "__init__.py" or path.parent.name == "versions"
            if not is_other and path.read_text().count("\n") < SHORTEST_MODULE:
                small.add(path.relative_to(ROOT).as_posix())
    assert small == SMALL.keys()
