"""`python -m infra.cli`: the same as `teamfit`, wherever its script is not on the path."""

from infra.cli import app

app(prog_name="teamfit")
