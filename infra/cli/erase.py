"""`teamfit erase`: say what would be erased, ask, and erase it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, Yes
from infra.cli.output import confirm, print_json
from infra.cli.plan_output import with_bar

if TYPE_CHECKING:
    from infra.operations.erase import Texts
    from infra.postgres import Database

app = typer.Typer()


@app.command()
@plain_errors()
def erase(
    organization: Annotated[str, typer.Option(help="The organization whose texts are erased.")],
    *,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase an organization's texts: wishes, activities, reasons, messages, dead letters. Its live jobs are cancelled.

    Rows, times and numbers stay, so bills and `teamfit verify` hold. Says how much there is and asks, unless --yes is
    given.
    """
    from infra.cli.session import with_database
    from infra.operations.erase import find_texts

    texts = with_database(lambda database: find_texts(database, organization))
    typer.echo(
        f"{organization}: {texts.jobs} jobs, {texts.activities} activities, {texts.events} events, "
        f"{texts.failed_events} failed events, {texts.cancellations} early cancellations; {len(texts.live)} jobs have "
        "not ended and are cancelled first",
        err=as_json,
    )
    if not texts.anything:
        typer.echo("There is nothing to erase.", err=as_json)
    elif not yes:
        confirm("Erase their texts? This cannot be undone.", err=as_json)
    if texts.anything:
        with_database(lambda database: _erase(database, texts))
    if as_json:
        print_json({**asdict(texts), "live": [str(job_id) for job_id in texts.live]})
    elif texts.anything:
        typer.echo("Erased. Run it once more when the topics' retention in the broker has passed, then teamfit verify.")


async def _erase(database: "Database", texts: "Texts") -> None:
    from infra.cli.session import opened_broker, operator
    from infra.operations.erase import erase_texts
    from producers.cancellation import Cancellation

    async with opened_broker("erase") as broker:
        cancellation = Cancellation(database, broker, database.clock)
        await with_bar(
            "erasing",
            "The same command goes on; what is erased stays so.",
            lambda report: erase_texts(database, cancellation, texts, operator=operator(), report=report),
        )
