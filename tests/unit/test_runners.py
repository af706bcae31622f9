"""How `make test` shares the tests out among its runners."""

from pathlib import Path

from tests.conftest import LONGEST_FIRST


def test_each_file_that_begins_early_is_there() -> None:
    """A file that is renamed would begin late, and three runners would wait for the fourth."""
    names = {file.name for file in Path(__file__).parents[1].rglob("test_*.py")}
    assert set(LONGEST_FIRST) <= names
    assert len(set(LONGEST_FIRST)) == len(LONGEST_FIRST)
