"""A pipeline with a further stage after quota works, and tells of the stage at every face."""

from pathlib import Path

from tests.further_stage import run_with, with_further_stage


def test_a_further_stage_works_in_all(tmp_path: Path) -> None:
    """Jobs pass it or are refused, wait and are cancelled in it, come back after it; nothing is lost or done twice."""
    done = run_with(with_further_stage(tmp_path), "-m", "tests.acceptance.a_longer_pipeline")
    assert done.returncode == 0, done.stdout + done.stderr
