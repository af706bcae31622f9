"""A generation worker whose settings allow no call says so when it starts, before a job finds out."""

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from consumers.generation.worker import create
from infra.settings import Settings


@pytest.mark.parametrize(
    ("address", "key", "named"),
    [
        ("banana", "k", "OPENAI_BASE_URL is banana"),
        ("ollama:11434/v1", "k", "OPENAI_BASE_URL is ollama:11434/v1"),
        ("http://", "k", "OPENAI_BASE_URL is http"),
        ("ftp://llm.internal/v1", "k", "OPENAI_BASE_URL is ftp://llm.internal/v1"),
        ("http://llm.internal:port/v1", "k", "OPENAI_BASE_URL is an address that is none"),
        ("https://secret:word@", None, "OPENAI_BASE_URL is https"),
        (None, None, "set OPENAI_API_KEY"),
    ],
)
def test_it_is_said_at_the_start(address: str | None, key: str | None, named: str) -> None:
    """The line names the variable, and no secret."""
    with capture_logs() as lines:
        create(Settings(openai_base_url=address, openai_api_key=SecretStr(key) if key else None))
    (line,) = [one for one in lines if one["event"] == "llm.misconfigured"]
    assert named in line["why"]
    assert "word" not in str(line)


def test_nothing_is_said_of_settings_that_allow_calls() -> None:
    """A local endpoint needs no key."""
    with capture_logs() as lines:
        create(Settings(openai_base_url="http://127.0.0.1:11434/v1", openai_api_key=None))
    assert [one for one in lines if one["event"] == "llm.misconfigured"] == []
