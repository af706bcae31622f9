"""What the prompt gets to know: the team and its materials, as the database gives them."""

from consumers.generation.attempts import Attempts
from consumers.generation.gate import Gate
from consumers.generation.prompt import Material, Team
from consumers.generation.runs import Attempt, UnderWay
from infra.clock import SystemClock
from tests.integration.generation.conftest import Pool, StageUnderTest, accepted, handovers


async def _team(stage: StageUnderTest, *, budget: int) -> Team:
    settings = stage.settings.model_copy(update={"materials_token_budget": budget})
    (attempt,) = await Attempts(stage.database, SystemClock(), settings, Gate("e")).begin(handovers(accepted()))
    assert isinstance(attempt, Attempt)
    assert attempt.team is not None
    return attempt.team


async def test_a_team_comes_with_its_own_materials_newest_first(stage: StageUnderTest) -> None:
    """What a team wrote last says most about it; what another team wrote is not read at all."""
    team = await _team(stage, budget=1_000)
    assert (team.name, team.size, team.description) == ("Platform", 8, "Remote engineers")
    assert team.materials == [Material("Survey", "Meetings are too long."), Material("Values", "We like puzzles.")]


async def test_no_more_of_the_materials_is_read_than_may_matter(stage: StageUnderTest, database: Pool) -> None:
    """A megabyte of handbook does not travel from the database when the prompt takes forty bytes of it."""
    await database.execute(
        "INSERT INTO team_materials (team_id, title, content) VALUES ('team-1', 'Handbook', repeat('x', 1000000))"
    )
    team = await _team(stage, budget=10)
    assert team.materials == [Material("Handbook", "x" * 40, truncated=True)]


async def test_a_budget_of_zero_reads_no_materials(stage: StageUnderTest) -> None:
    """Materials can be turned off."""
    assert (await _team(stage, budget=0)).materials == []


async def test_two_entries_of_one_run_in_a_batch_are_one_attempt(stage: StageUnderTest, database: Pool) -> None:
    """The second entry finds the first one's attempt under way, as it would in another worker."""
    event, other = accepted(), accepted()
    batch = [(event, "a"), (other, "b"), (event, "c")]
    begun = await Attempts(stage.database, SystemClock(), stage.settings, Gate("e")).begin(batch)
    assert [type(one) for one in begun] == [Attempt, Attempt, UnderWay]
    assert await database.fetchval("SELECT array_agg(entry ORDER BY entry) FROM generation_attempts") == ["a", "b"]
