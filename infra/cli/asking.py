"""Commands that change something ask first, on a terminal and off it."""

import sys

import typer


def confirm(question: str, *, err: bool = False) -> None:
    """Ask whether to go on, and end the command unless the answer is yes.

    Args:
        question: what is asked.
        err: ask on standard error, since standard output is for a program.

    Raises:
        Abort: the answer is no, or there is none.
    """
    try:
        typer.confirm(question, abort=True, err=err)
    except typer.Abort:
        hint = "" if sys.stdin.isatty() else " To do it without being asked, add --yes."
        typer.echo(f"\nNothing was done.{hint}", err=True)
        raise
