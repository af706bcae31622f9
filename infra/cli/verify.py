"""`teamfit verify` prints a table or one JSON document, and sets the exit code."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import out, print_json, second

if TYPE_CHECKING:
    from infra.postgres import Session
    from infra.verify import Report

app = typer.Typer()


@app.command()
@plain_errors()
def verify(
    *,
    settled: Annotated[
        bool, typer.Option(help="Nothing should be under way: nothing may be reserved, live or overdue.")
    ] = False,
    llm_calls: Annotated[
        int | None,
        typer.Option(help="How many calls the LLM's provider counted; as many must be on record.", min=0),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds by which an effect may lag behind its cause; none with --settled.", min=0)
    ] = 900,
    timeout: Annotated[float, typer.Option(help="The most seconds that a statement may take.", min=0.001)] = 120,
    examples: Annotated[int, typer.Option(help="The most IDs to name for each invariant.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """Check that nothing was lost, charged twice or saved twice. It reads, and is safe in production.

    What it found is noted in one row, for the overview; where that may not be written, it says so.
    Ends with code 1 if an invariant is violated, and names the jobs.
    """
    from infra.cli.session import with_session
    from infra.verify import note
    from infra.verify import verify as check

    async def work(connection: "Session") -> "Report":
        report = await check(
            connection,
            settled=settled,
            llm_calls=llm_calls,
            patience=timedelta(seconds=patience),
            statement_timeout=timedelta(seconds=timeout),
            examples=examples,
        )
        if (why := await note(connection, report)) is not None:
            typer.echo(f"The console's overview will not show this: {why}", err=True)
        return report

    report = with_session(work)
    if as_json:
        print_json(report.document())
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: "Report") -> None:
    console = out(pipe_width=120)
    table = Table(title=f"{'At rest, ' if report.settled else ''}at {second(report.at)} UTC")
    table.add_column("invariant")
    table.add_column("what always holds")
    table.add_column("checked", justify="right")
    table.add_column("violations", justify="right")
    for finding in report.findings:
        style = "red" if finding.violations else ""
        statement = f"{finding.statement}\n[dim]{finding.detail}[/]" if finding.detail else finding.statement
        table.add_row(finding.name, statement, str(finding.checked), str(finding.violations), style=style)
    console.print(table)
    for finding in report.violated:
        console.print(
            f"{finding.name}: {finding.violations} of {finding.checked} violate it", style="bold red", markup=False
        )
        for example in finding.examples:
            console.print(f"  {example}", markup=False, soft_wrap=True)
        if finding.violations > len(finding.examples):
            console.print(f"  … and {finding.violations - len(finding.examples)} more", markup=False)
        console.print(f"  What to do: {finding.next_step}", markup=False)
    if report.ok:
        console.print(f"All {len(report.findings)} invariants hold.", style="bold green")
