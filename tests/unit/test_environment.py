"""Settings on their way to a child process."""

import pytest
from pydantic import SecretStr

from infra.local.environment import environment
from infra.settings import Settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(Settings.variable(name), raising=False)


def test_a_child_reads_the_settings_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent was given, by whichever source, the child finds in its environment; defaults are left alone."""
    given = Settings(
        _env_file=None,
        database_url="postgresql://somewhere/else",
        signing_key=SecretStr("k" * 32),
        generation_concurrency=7,
    )
    handed_down = environment(given)
    for name in ("DATABASE_URL", "TEAMFIT_SIGNING_KEY", "TEAMFIT_GENERATION_CONCURRENCY"):
        monkeypatch.setenv(name, handed_down[name])
    assert "BROKER_URL" not in handed_down
    assert Settings(_env_file=None) == given
