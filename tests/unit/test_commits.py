"""Which transactions do not wait for the disk: those of the decision record, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STATEMENT = re.compile(r"^-- name: (\w+)", re.MULTILINE)
_NOT_WAITED_FOR = {
    ("streams/jobs/ownership.sql", "claim"),
    ("streams/jobs/dispatch.sql", "release"),
    ("streams/jobs/dispatch.sql", "published"),
}


def test_the_statements_that_do_not_wait_for_the_disk_are_those_of_the_decision() -> None:
    """A crash may take what they commit; whoever adds one says in the record what that leaves behind."""
    found = set()
    for path in (*ROOT.glob("streams/**/*.sql"), *ROOT.glob("consumers/**/*.sql"), *ROOT.glob("producers/**/*.sql")):
        _, *parts = _STATEMENT.split(path.read_text())
        for name, statement in zip(parts[::2], parts[1::2], strict=True):
            if "'synchronous_commit'" in statement:
                found.add((path.relative_to(ROOT).as_posix(), name))
    assert found == _NOT_WAITED_FOR
    code = [*ROOT.glob("streams/**/*.py"), *ROOT.glob("consumers/**/*.py"), *ROOT.glob("producers/**/*.py")]
    code += [*ROOT.glob("infra/*.py"), *ROOT.glob("infra/migrations/**/*.sql")]
    assert not [path for path in code if "synchronous_commit" in path.read_text()]
