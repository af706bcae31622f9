"""What one can do by command, API or console, all three can."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_OPERATIONS: Final = _ROOT / "infra" / "operations"
_FACES: Final = {"cli", "api", "console"}
# Parts of other operations, and what makes the statements of several: nothing that somebody does.
_PARTS: Final = {
    *("cursors.write_cursor", "cursors.read_cursor", "cursors.read_delivery_cursor", "cursors.read_endpoint_cursor"),
    *("controls.plain", "faults.faults_of", "frozen_plans.statements", "history.read_history"),
    *("job_search.values_of", "job_search.count_jobs", "job_search.find_jobs", "job_statements.filtered"),
    *("job_statements.statements_for", "job_statements.walk_for"),
    *("job_search.notice_of", "plan_applying.apply_plan", "prices.currency", "prices.micro_units"),
    *("prices.amount_of", "prices.budget_of", "prices.kind_of", "prices.spent_amount", "tenants.organization_in"),
}


def _operations() -> Iterator[str]:
    for module in sorted(_OPERATIONS.glob("*.py")):
        for node in ast.parse(module.read_text()).body:
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{module.stem}.{node.name}"


def _used() -> Mapping[str, set[str]]:
    """Return by which faces each operation is called."""
    used: defaultdict[str, set[str]] = defaultdict(set)
    for face in _FACES:
        for module in (_ROOT / "infra" / face).rglob("*.py"):
            for name in _names(ast.parse(module.read_text())):
                used[name].add(face)
    return used


def _names(tree: ast.Module) -> Iterator[str]:
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("infra.operations"):
            module = (node.module or "").removeprefix("infra.operations").lstrip(".")
            for one in node.names:
                if module:
                    yield f"{module}.{one.name}"
                else:
                    modules[one.asname or one.name] = one.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield f"{modules[node.value.id]}.{node.attr}"


def test_what_one_face_can_do_all_three_can() -> None:
    """Each operation is called by commands, routes and pages; one that is added is added to all."""
    used = _used()
    lacking = {name: sorted(_FACES - used[name]) for name in _operations() if _FACES - used[name]}
    assert lacking.keys() == _PARTS, {
        "lacks a face": {name: faces for name, faces in lacking.items() if name not in _PARTS},
        "lacks none any more": _PARTS - lacking.keys(),
    }
