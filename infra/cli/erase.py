"""`teamfit erase`: say what would be erased, ask, and erase it."""

from dataclasses import asdict

import typer

from infra.cli.output import print_json
from infra.cli.session import operator, with_database
from infra.operations.erase import Texts, erase_texts, find_texts
from infra.postgres import Database
from infra.settings import settings
from producers.broker import Broker
from producers.cancel.cancellation import Cancellation


def run(organization: str, *, yes: bool, as_json: bool) -> None:
    """Erase an organization's texts.

    Raises:
        typer.Abort: the answer was no.
        NothingKnown: it has none.
        DependencyDown: Postgres is away.
    """
    texts = with_database(lambda database: find_texts(database, organization))
    typer.echo(
        f"{organization}: {texts.jobs} jobs, {texts.activities} activities, {texts.events} events, "
        f"{texts.failed_events} failed events; {len(texts.live)} jobs have not ended and are cancelled first",
        err=as_json,
    )
    if not yes:
        typer.confirm("Erase their texts? This cannot be undone.", abort=True, err=as_json)
    with_database(lambda database: _erase(database, texts))
    if as_json:
        print_json({**asdict(texts), "live": [str(job_id) for job_id in texts.live]})
    else:
        typer.echo("Erased. Run it once more when the topics' retention in the broker has passed, then teamfit verify.")


async def _erase(database: Database, texts: Texts) -> None:
    broker = Broker(settings(), name="erase")
    try:
        await erase_texts(database, Cancellation(database, broker, database.clock), texts, operator=operator())
    finally:
        await broker.close()
