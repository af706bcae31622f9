"""What each misbehaviour of the LLM endpoint becomes, over real HTTP."""

from datetime import timedelta

import pytest

from infra.errors import DependencyDown, Permanent, Postponed, Transient
from infra.local.processes import free_port
from tests.integration.generation.conftest import Endpoint, Pool, StageUnderTest, Starter, accepted, eventually


@pytest.mark.parametrize(
    ("mode", "error", "code", "has_usage", "maybe_billed"),
    [
        ("429", DependencyDown, "llm_rate_limited", False, False),
        # Once may be the end of an outage, and a harmless question is answered: nobody is held, nothing is spent.
        ("503", Postponed, "llm_server_error", False, False),
        ("reset", Postponed, "llm_connection_lost", False, True),
        ("401", Postponed, "llm_misconfigured", False, False),
        ("rubbish", Transient, "llm_invalid_output", True, False),
        ("two_activities", Transient, "llm_invalid_output", True, False),
        ("four_activities", Transient, "llm_invalid_output", True, False),
        ("truncated", Permanent, "llm_truncated", True, False),
        ("refusal", Permanent, "llm_refusal", True, False),
        ("content_filter", Permanent, "llm_content_filter", True, False),
    ],
)
async def test_each_misbehaviour_has_its_class_and_its_record(
    stage: StageUnderTest,
    endpoint: Endpoint,
    database: Pool,
    mode: str,
    error: type[Exception],
    code: str,
    *,
    has_usage: bool,
    maybe_billed: bool,
) -> None:
    """The error's type decides what the stage does; the attempt says what happened and what it cost."""
    await endpoint.tell(mode, count=1)
    event = accepted()
    with pytest.raises(error):
        await stage.handle(event)
    row = await database.fetchrow("SELECT * FROM generation_attempts")
    assert row is not None
    assert (row["state"], row["error_code"], row["maybe_billed"]) == ("failed", code, maybe_billed)
    assert (row["prompt_tokens"] is not None) == has_usage
    assert await database.fetchval("SELECT count(*) FROM customized_activities") == 0
    # The next try is another attempt at the same run, once a hold is over.
    assert await eventually(stage, event)
    assert await database.fetchval("SELECT max(attempt) FROM generation_attempts") == 2


async def test_retry_after_is_handed_on(stage: StageUnderTest, endpoint: Endpoint, database: Pool) -> None:
    """A 429 that says when to come back is no job's fault: the stage holds until then, and a little longer."""
    await endpoint.tell("429", retry_after=7)
    with pytest.raises(DependencyDown) as raised:
        await stage.handle(accepted())
    assert raised.value.retry_after is not None
    assert timedelta(seconds=6) < raised.value.retry_after < timedelta(seconds=8)
    assert await database.fetchval("SELECT error_code FROM generation_attempts") == "llm_rate_limited"


async def test_an_endpoint_that_hangs_is_left_and_may_have_billed(
    start_stage: Starter, endpoint: Endpoint, database: Pool, team: str
) -> None:
    """A call ends at its limit, and the attempt says that nobody knows what it cost."""
    await endpoint.tell("slow")
    stage = await start_stage(generation_timeout_s=0.3)
    with pytest.raises(DependencyDown, match="TEAMFIT_GENERATION_TIMEOUT_S"):
        await stage.handle(accepted())
    assert await database.fetchval("SELECT error_code FROM generation_attempts") == "llm_timeout"
    assert await database.fetchval("SELECT maybe_billed FROM generation_attempts") is True


async def test_an_endpoint_that_is_not_there_is_an_outage(start_stage: Starter, database: Pool, team: str) -> None:
    """A refused connection is no job's fault: the stage holds; no call was made, so none is on record."""
    stage = await start_stage(openai_base_url=f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(DependencyDown, match="OPENAI_BASE_URL") as raised:
        await stage.handle(accepted())
    assert raised.value.dependency == "llm"
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == 0


async def test_an_unsupported_format_names_its_setting(start_stage: Starter, endpoint: Endpoint, team: str) -> None:
    """The message tells the operator which variable to change."""
    await endpoint.tell("schema_unsupported")
    stage = await start_stage(completion_format="json_schema")
    with pytest.raises(DependencyDown, match="TEAMFIT_COMPLETION_FORMAT=auto"):
        await stage.handle(accepted())


@pytest.mark.parametrize("completion_format", ["auto", "json_object", "json_object_with_schema"])
async def test_other_formats_work_where_a_schema_does_not(
    start_stage: Starter, endpoint: Endpoint, team: str, completion_format: str
) -> None:
    """An endpoint without strict schemas gives three activities in the other formats."""
    await endpoint.tell("schema_unsupported")
    stage = await start_stage(completion_format=completion_format)
    assert await stage.handle(accepted())
