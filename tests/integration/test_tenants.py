"""`teamfit organization` and `teamfit team`, run as an operator without a TEAMFIT backend runs them."""

import json
from typing import Any

import pytest

from tests.commands import Run
from tests.conftest import Pool


@pytest.fixture
def teamfit(teamfit: Run) -> Run:
    """Runs a command that is given as a line."""
    return lambda line: teamfit(*line.split())


_NO_LIMITS = {"requests_per_minute": None, "max_waiting": None, "budget": None, "budget_kind": None}
_NO_SHARE = {"weight": None, "max_in_flight": None, "share": 1.0, "cap": None} | _NO_LIMITS


async def _json(teamfit: Run, line: str) -> Any:
    said = await teamfit(f"{line} --json")
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


async def test_an_organization_is_added_once_and_changed(teamfit: Run) -> None:
    """The same call again changes nothing; what is given changes, and the rest stays."""
    hazel = {"id": "hazel", "name": "hazel", "trust_score": 1.0, "plan": "team", "status": "active", "teams": 0}
    expected = hazel | {"monthly_quota": 7, "priority": False, "waiting": 0, "in_flight": 0} | _NO_SHARE
    for _ in range(2):
        assert await _json(teamfit, "organization add hazel --quota 7") == expected
    changed = expected | {"priority": True, "trust_score": 0.25, "monthly_quota": 9, "share": 4.0}
    assert await _json(teamfit, "organization set hazel --priority --trust 0.25 --quota 9") == changed
    assert await _json(teamfit, "organization show hazel") == changed
    assert await _json(teamfit, "organization list") == [changed]
    assert await _json(teamfit, "organization set hazel --no-priority") == changed | {"priority": False, "share": 1.0}


async def test_a_share_is_the_organizations_own_or_its_plans(teamfit: Run) -> None:
    """Both can be set and given up; what counts stands beside what was given."""
    await teamfit("organization add hazel --plan team --max-in-flight 3")

    async def share() -> tuple[float | None, int | None, float, int | None]:
        shown = await _json(teamfit, "organization show hazel")
        return shown["weight"], shown["max_in_flight"], shown["share"], shown["cap"]

    assert await share() == (None, 3, 1.0, 3)
    plan = {"plan": "team", "weight": 2.5, "max_in_flight": 20} | _NO_LIMITS
    assert await _json(teamfit, "plan set team --weight 2.5 --max-in-flight 20") == plan
    assert await share() == (None, 3, 2.5, 3)
    await teamfit("organization set hazel --weight 7 --max-in-flight 0")
    assert await share() == (7.0, 0, 7.0, 0)
    await teamfit("organization set hazel --as-plan")
    assert await share() == (None, None, 2.5, 20)
    await teamfit("organization set hazel --as-plan --weight 3")
    assert await share() == (3.0, None, 3.0, 20)
    assert await _json(teamfit, "plan set team --no-cap") == plan | {"max_in_flight": None}
    assert await share() == (3.0, None, 3.0, None)
    assert await _json(teamfit, "plan list") == [plan | {"max_in_flight": None}]
    limited = plan | {"max_in_flight": None, "requests_per_minute": 600, "max_waiting": 9}
    assert await _json(teamfit, "plan set team --requests-per-minute 600 --max-waiting 9") == limited
    assert (await teamfit("plan forget team")).exit_code == 0
    assert await _json(teamfit, "plan list") == []


async def test_a_team_is_added_once(teamfit: Run) -> None:
    """To an organization that is there; lists can be narrowed to one organization."""
    for organization in ("hazel", "birch"):
        await teamfit(f"organization add {organization}")
        for _ in range(2):
            team = await _json(teamfit, f"team add {organization}-core --organization {organization} --size 9")
            assert (team["organization_id"], team["size"], team["description"]) == (organization, 9, None)
    assert [team["id"] for team in await _json(teamfit, "team list")] == ["birch-core", "hazel-core"]
    assert [team["id"] for team in await _json(teamfit, "team list --organization hazel")] == ["hazel-core"]
    assert (await _json(teamfit, "organization show hazel"))["teams"] == 1


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("organization add acme --quota 8", 1, "monthly_quota 7, not 8: change it with `teamfit organization set`"),
        ("organization add elm --quota -1", 2, "--quota"),
        ("organization add elm --quota 3000000000", 2, "--quota"),
        ("organization add elm --trust 1.5", 2, "--trust"),
        ("organization add elm --trust nan", 2, "--trust"),
        ("organization add elm --status activ", 2, "--status"),
        (f"organization add {'e' * 65}", 2, "more than 64 characters; shorten it"),
        ("organization set acme", 2, "at least one option"),
        ("organization set acme --weight 0", 2, "--weight"),
        ("organization set acme --weight nan", 2, "--weight"),
        ("organization set acme --max-in-flight -1", 2, "--max-in-flight"),
        ("plan set team", 2, "at least one option"),
        ("plan set team --no-cap --max-in-flight 3", 2, "not both"),
        ("plan set team --weight 1001", 2, "--weight"),
        ("plan forget nobodys", 1, "plan nobodys: nothing is set for it"),
        ("organization set elm --quota 1", 1, "organization elm: not found"),
        ("organization set bare --quota 1", 1, "give --plan"),
        ("organization show elm", 1, "organization elm: not found"),
        ("team add t --organization elm", 1, "organization elm: not found"),
        ("team add acme-core --organization bare", 1, "organization_id 'acme', not 'bare': choose another ID"),
        ("team add t --organization acme --size 0", 2, "--size"),
        ("team list --organization elm", 1, "organization elm: not found"),
    ],
)
async def test_what_is_wrong_is_named(teamfit: Run, database: Pool, line: str, code: int, says: str) -> None:
    """The field and the fix, in a line; nothing is changed."""
    await teamfit("organization add acme --quota 7")
    await teamfit("team add acme-core --organization acme")
    await database.execute("INSERT INTO organizations (id, name) VALUES ('bare', 'without a subscription')")
    before = await _json(teamfit, "organization list")
    said = await teamfit(line)
    assert (said.exit_code, says in " ".join(said.output.split())) == (code, True), said.output
    assert "Traceback" not in said.output
    assert await _json(teamfit, "organization list") == before


async def test_who_may_request_nothing_is_told_so(teamfit: Run) -> None:
    """A free plan is no error, but its requests will be refused."""
    assert "subscription_required" in (await teamfit("organization add dune --plan free")).stdout
    assert "subscription_required" not in (await teamfit("organization add acme")).stdout


async def test_a_table_that_the_backend_fills_further_is_named(teamfit: Run, database: Pool) -> None:
    """Where the TEAMFIT backend asks for more columns, it has to add the organization."""
    await database.execute("ALTER TABLE organizations ADD COLUMN country text NOT NULL")
    said = await teamfit("organization add acme")
    assert said.exit_code == 1
    assert "country" in said.output
    assert "TEAMFIT backend" in said.output


async def test_the_version_and_the_scopes_of_tokens(teamfit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--version` prints it; a scope that the API does not know is refused with those that it knows."""
    assert (await teamfit("--version")).stdout.startswith("teamfit 0.")
    monkeypatch.setenv("TEAMFIT_SIGNING_KEY", "k" * 32)
    assert (await teamfit("token --organization acme --scope operator --scope jobs")).exit_code == 0
    said = await teamfit("token --organization acme --scope operators")
    assert said.exit_code == 2
    assert "operator" in said.output
