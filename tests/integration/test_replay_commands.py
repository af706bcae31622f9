"""`teamfit failed` and `teamfit replay`, run as an operator runs them, on real servers."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.commands import Run
from tests.conftest import Pool
from tests.integration.replay_scene import Scene, open_scene
from tests.stream_entries import entries_of


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """Two failed generations and an entry that is no event."""
    async with open_scene(database, database_url) as scene:
        for _ in range(2):
            await scene.failed_generation()
        await scene.malformed(b"\x1b[2J\xff no event")
        yield scene


async def test_failed_events_are_listed(teamfit: Run, scene: Scene) -> None:
    """The table names each, and the total is said even when fewer are shown; JSON has the same."""
    result = await teamfit("failed", "list", "--stage", "generation", "--limit", "1")
    assert result.exit_code == 0
    assert "llm" not in result.stdout
    assert "Permanent" in result.stdout
    assert "the model would not" in result.stdout
    assert "2 failed events, 1 shown." in result.stdout
    page = json.loads((await teamfit("failed", "list", "--json", "--organization", "acme")).stdout)
    assert (page["total"], {one["stage"] for one in page["failed_events"]}) == (2, {"generation"})
    assert "0 failed events" in (await teamfit("failed", "list", "--until", "2020-04-01")).stdout
    assert (await teamfit("failed", "list", "--since", "yesterday")).exit_code == 2


@pytest.mark.parametrize(("option", "names"), [("--stage", "generation"), ("--reason", "given_up"), ("--trace", "32")])
@pytest.mark.parametrize("command", [("failed", "list"), ("failed", "discard", "--because", "x"), ("replay", "plan")])
async def test_a_misspelt_filter_is_refused(teamfit: Run, command: tuple[str, ...], option: str, names: str) -> None:
    """It would find nothing, which looks like good news; the answer has what there is."""
    result = await teamfit(*command, option, "misspelt")
    assert result.exit_code == 2
    assert names in result.output


async def test_one_failed_event_is_shown(teamfit: Run, scene: Scene) -> None:
    """Everything is printed; bytes that are no text are in hexadecimal, and none of them reaches the terminal raw."""
    identity = await scene.pool.fetchval("SELECT id FROM failed_events WHERE stage = 'quota'")
    result = await teamfit("failed", "show", identity)
    assert result.exit_code == 0
    for expected in ("InvalidEvent", "note: by hand", "event, 14 bytes", "1b 5b 32 4a ff", "Traceback (most recent"):
        assert expected in result.stdout
    assert "\x1b[2J" not in result.stdout
    unknown = await teamfit("failed", "show", uuid4())
    assert (unknown.exit_code, "not found" in unknown.stderr) == (1, True)


async def test_discarding_says_how_many_and_asks(teamfit: Run, scene: Scene) -> None:
    """The count comes before the question; no leaves everything; yes sets them aside, with the reason."""
    refused = await teamfit("failed", "discard", "--stage", "generation", "--because", "noise", answer="n\n")
    assert refused.exit_code == 1
    assert refused.stdout.index("2 open failed events would be discarded") < refused.stdout.index("Discard them?")
    assert {row["state"] for row in await scene.rows()} == {"open"}
    assert (await teamfit("failed", "discard", "--because", "noise", "--yes")).exit_code == 2
    agreed = await teamfit("failed", "discard", "--stage", "generation", "--because", "noise", "--yes")
    assert "2 discarded." in agreed.stdout
    rows = await scene.rows()
    assert sorted(row["state"] for row in rows) == ["discarded", "discarded", "open"]
    assert {row["discarded_because"] for row in rows} == {"noise", None}


async def test_a_replay_is_planned_looked_at_and_applied(teamfit: Run, scene: Scene, redis_url: str) -> None:
    """Nothing is sent before `apply` is confirmed; applying says how many; again, it says that nothing was."""
    planned = await teamfit("replay", "plan", "--organization", "acme")
    assert planned.exit_code == 0
    for expected in ("2 failed events, by stage and error", "job-requests", "Nothing was sent.", "LLM tokens: unknown"):
        assert expected in planned.stdout
    plan = json.loads((await teamfit("replay", "plan", "--stage", "generation", "--json")).stdout)["id"]
    empty = await teamfit("replay", "plan", "--stage", "projection")
    assert (empty.exit_code, "nothing to send" in empty.stdout) == (0, True)
    listed = json.loads((await teamfit("replay", "list", "--json")).stdout)
    assert [(one["id"] == plan, one["events"]) for one in listed] == [(False, 0), (True, 2), (False, 2)]
    assert "stage: generation" in (await teamfit("replay", "list")).stdout
    assert (await teamfit("replay", "apply", plan, "--rate", "100/s", answer="n\n")).exit_code == 1
    assert await entries_of(redis_url, "job-requests") == []
    applied = await teamfit("replay", "apply", plan, "--rate", "100/s", answer="y\n")
    assert (applied.exit_code, "2 of 2 events are sent" in applied.stdout) == (0, True), applied.output
    assert len(await entries_of(redis_url, "job-requests")) == 2
    again = await teamfit("replay", "apply", plan, "--rate", "100/s", "--yes")
    assert (again.exit_code, "nothing was sent" in again.stdout) == (0, True)
    assert len(await entries_of(redis_url, "job-requests")) == 2
    status = await teamfit("replay", "status", plan, "--events", "5")
    assert "State: finished, 2 of 2 events sent" in status.stdout
    assert status.stdout.count("1 → 2") == 2
    page = json.loads((await teamfit("replay", "status", plan, "--events", "1", "--json")).stdout)
    assert [(one["action"], one["others_behind"]) for one in page["items"]] == [("rerun", 0)]


async def test_a_refused_apply_is_a_message_and_an_exit_code(teamfit: Run, scene: Scene) -> None:
    """A changed or aborted plan, and a wrong rate, end in a sentence and not in a traceback."""
    plan = (await scene.plan()).id
    assert (await teamfit("replay", "apply", plan, "--rate", "fast", "--yes")).exit_code == 2
    await scene.pool.execute("UPDATE failed_events SET occurrences = 2 WHERE stage = 'quota'")
    changed = await teamfit("replay", "apply", plan, "--rate", "100", "--yes")
    assert (changed.exit_code, "failed again" in changed.stderr) == (1, True)
    assert "is aborted; 0 of its 3 events were sent" in (await teamfit("replay", "abort", plan)).stdout
    aborted = await teamfit("replay", "apply", plan, "--rate", "100", "--yes")
    assert (aborted.exit_code, "was aborted" in aborted.stderr) == (1, True)


async def test_an_entry_of_several_stages_is_told_as_such(teamfit: Run, scene: Scene) -> None:
    """Each stage that reads a bad entry fails it for itself; a list of both says that they are one entry."""
    hint = "once for each"
    await scene.malformed(group="quota")
    assert hint not in (await teamfit("failed", "list")).stdout
    await scene.malformed(group="projection")
    said = await teamfit("failed", "list")
    assert hint in said.stdout, said.output
