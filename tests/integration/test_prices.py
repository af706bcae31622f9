"""What calls cost in money: the ledger's sums are those of an invoice, to the last unit."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import pytest

from infra.operations.prices import amount_of, micro_units, spent_amount
from tests.commands import Run
from tests.conftest import Pool

MILLION = 1_000_000
PRICES = {"small": (150_000, 600_000), "large": (2_500_000, 10_000_000)}
MOST = 4_000
NOW = datetime(2031, 4, 15, 12, tzinfo=UTC)


async def set_prices(database: Pool, *, since: datetime = NOW - timedelta(days=1)) -> None:
    """Give each model its price."""
    rows = [(model, since, *price) for model, price in PRICES.items()]
    await database.executemany("INSERT INTO llm_prices VALUES ($1, $2, $3, $4, 'USD')", rows)


async def begin(database: Pool, organization_id: str = "acme", at: datetime = NOW) -> UUID:
    """Begin a call."""
    job_id = uuid4()
    await database.execute(
        "INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, organization_id, most_tokens)"
        " VALUES ($1, 1, 1, $1, 'started', $2, $3, $4)",
        *(job_id, at, organization_id, MOST),
    )
    return job_id


async def end(database: Pool, job_id: UUID, state: str, *told: object, unknown: bool = False) -> None:
    """Record how a call ended: model, tokens in, tokens out; and whether its cost is unknown."""
    await database.execute(
        "UPDATE generation_attempts SET state = $2, model = $3, prompt_tokens = $4, completion_tokens = $5,"
        " maybe_billed = $6 WHERE job_id = $1",
        *(job_id, state, *told, unknown),
    )


def invoiced(model: str, tokens_in: int, tokens_out: int) -> int:
    """What a provider asks for one call, in micro-units, rounded up."""
    price_in, price_out = PRICES[model]
    return -(-(tokens_in * price_in + tokens_out * price_out) // MILLION)


async def cost(database: Pool, organization_id: str = "acme") -> tuple[int, int]:
    """The cost of an organization's month, and the calls that are not in it."""
    row = await database.fetchrow(
        "SELECT cost, unpriced_calls FROM llm_usage WHERE organization_id = $1", organization_id
    )
    assert row is not None
    return row["cost"], row["unpriced_calls"]


async def test_the_ledger_is_the_invoice_to_the_last_unit(database: Pool) -> None:
    """Over calls that were saved, that failed and were billed, and that were taken over and answered late or twice."""
    await set_prices(database)
    dice = Random(7)
    invoice = {"acme": 0, "rival": 0}
    for _ in range(300):
        whose, model = dice.choice(("acme", "rival")), dice.choice(("small", "large"))
        tokens = dice.randrange(1, 3_000), dice.randrange(1, 3_000)
        call = await begin(database, whose)
        how = dice.choice(("saved", "failed", "refused", "killed", "late"))
        if how == "refused":
            await end(database, call, "failed", None, None, None)
            continue
        if how in ("killed", "late"):
            await end(database, call, "abandoned", None, None, None, unknown=True)
        if how == "killed":
            # Nobody knows the model or the tokens: a full answer at the dearest price.
            invoice[whose] += MOST * PRICES["large"][1] // MILLION
            continue
        invoice[whose] += invoiced(model, *tokens)
        for _ in range(dice.choice((1, 2))):
            await end(database, call, "abandoned" if how == "late" else how, model, *tokens, unknown=how == "late")
    assert {whose: await cost(database, whose) for whose in invoice} == {
        whose: (total, 0) for whose, total in invoice.items()
    }


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (("small", 1_000, 1, False), 151),  # 150.6, rounded up
        (("small", 1_000, None, True), 150 + 2_400),
        (("small", None, 10, True), 6 + 2_400),
        (("small", None, None, True), 2_400),
        ((None, None, None, True), 40_000),
        ((None, None, None, False), 0),
        (("nobody's", 5, 5, False), None),
    ],
)
async def test_what_is_not_known_counts_as_a_full_answer(
    database: Pool, told: Sequence[object], expected: int | None
) -> None:
    """At the dearest price that it may have had; and a model without a price is counted as such, never as free."""
    await set_prices(database)
    call = await begin(database)
    *answer, unknown = told
    await end(database, call, "failed", *answer, unknown=bool(unknown))
    assert await database.fetchval("SELECT cost FROM generation_attempts") == expected
    assert await cost(database) == ((expected or 0), int(expected is None))


async def test_a_price_holds_for_calls_that_begin_after_it(database: Pool) -> None:
    """A new price changes nothing of what was begun before."""
    await set_prices(database)
    await database.execute("INSERT INTO llm_prices VALUES ('small', $1, 0, 1000000, 'USD')", NOW)
    for at in (NOW - timedelta(seconds=1), NOW):
        await end(database, await begin(database, at=at), "saved", "small", 1_000_000, 1_000_000)
    rows = await database.fetch("SELECT cost FROM generation_attempts ORDER BY started_at")
    assert [row["cost"] for row in rows] == [750_000, 1_000_000]


async def test_prices_are_set_and_shown_by_command(teamfit: Run, database: Pool) -> None:
    """A price that was missing is made up for; the months of an organization are shown in tokens and money."""
    call = await begin(database, at=datetime.now(UTC))
    await end(database, call, "saved", "small", 1_000_000, 1_000_000)
    await database.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme')")
    assert "For example" in (await teamfit("llm", "prices", "list")).stdout
    assert "small: 1 calls have no price" in (await teamfit("llm", "prices", "list")).stdout
    done = await teamfit("llm", "prices", "set", "small", "0.15", "0.60", "--from", "2025-01-01")
    assert "1 calls on record have a price now" in done.stdout
    (shown,) = json.loads((await teamfit("llm", "prices", "list", "--json")).stdout)["prices"]
    assert (shown["input_price"], shown["output_price"], shown["holds"]) == (150_000, 600_000, True)
    (month,) = json.loads((await teamfit("quota", "show", "acme", "--json")).stdout)["llm"]
    assert (month["cost"], month["unpriced_calls"], month["currency"]) == (750_000, 0, "USD")
    assert "0.750000 USD" in (await teamfit("quota", "show", "acme")).stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("m", "cheap", "1"), "input price: 'cheap' is no number"),
        (("m", "1", "0.0000001"), "at most six decimals"),
        (("m", "1", "NaN"), "output price"),
        (("m", "1", "1", "--currency", "eur"), "three capitals"),
        (("m", "1", "1", "--currency", "EUR"), "there are prices in USD"),
    ],
)
async def test_a_wrong_price_is_refused_by_name(
    teamfit: Run,
    database: Pool,
    arguments: Sequence[str],
    complaint: str,
) -> None:
    """Nothing is set."""
    await set_prices(database)
    refused = await teamfit("llm", "prices", "set", *arguments)
    assert (refused.exit_code, complaint in refused.stderr) == (1, True)
    assert await database.fetchval("SELECT count(*) FROM llm_prices WHERE model = 'm'") == 0


@pytest.mark.parametrize(
    ("micro", "said"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (2_107, "0.0021"),
        (42_000, "0.042"),
        (420_000, "0.42"),
        (1_234_567_890, "1,234.57"),
    ],
)
def test_a_sum_that_was_spent_shows_two_figures(micro: int, said: str) -> None:
    """Nine calls to a cheap model were shown as 0.00."""
    assert spent_amount(micro) == said


@pytest.mark.parametrize(
    ("micro", "said"), [(0, "0.00"), (5_000, "0.005"), (50_250_000, "50.25"), (100_000_000, "100.00"), (1, "0.000001")]
)
def test_a_sum_of_money_is_said_as_exactly_as_it_was_given(micro: int, said: str) -> None:
    """A budget of half a cent was shown as a whole one."""
    assert amount_of(micro) == said
    assert micro_units(said, name="budget") == micro
