"""The written contract of the events."""

from pathlib import Path

from streams.jobs.schemas import DOCS, outdated, write


def test_the_documents_in_the_repository_are_current() -> None:
    """Whoever changes an event runs `python -m streams.jobs.schemas`."""
    assert outdated(DOCS) == [], "python -m streams.jobs.schemas writes them anew"


def test_a_changed_and_an_extra_file_are_noticed(tmp_path: Path) -> None:
    """Documents that differ from the models, and schemas of events that are no more, count as not current."""
    write(tmp_path)
    assert outdated(tmp_path) == []
    changed, extra = tmp_path / "asyncapi.json", tmp_path / "schemas" / "teamfit.job.dreamt.v1.json"
    changed.write_text("{}")
    extra.write_text("{}")
    assert set(outdated(tmp_path)) == {changed, extra}
    write(tmp_path)
    assert outdated(tmp_path) == []
