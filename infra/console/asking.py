"""A page says what an action would do. Its form does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from starlette.responses import Response

from infra.console.desk import Desk
from infra.console.visits import Visit

Change: TypeAlias = tuple[str, object, object]


@dataclass(frozen=True, slots=True)
class Question:
    """The effects of an action, shown before it is done.

    Attributes:
        title: of the page.
        subject: what is done, to what.
        effects: what follows, each with its name.
        action: the address of the form that does it; None: there is nothing to do.
        back: where the page leads otherwise.
        why: in the operator's words.
        hint: when it counts, or that it cannot be undone.
        changes: values that change: name, now, then.
        button: what the form's button says.
        heading: above the effects.
    """

    title: str
    subject: str
    effects: Sequence[tuple[str, object]]
    action: str | None
    back: str
    why: str = ""
    hint: str = ""
    changes: Sequence[Change] = ()
    button: str = "Do it"
    heading: str = "What follows"

    def asked(self, desk: Desk, visit: Visit) -> Response:
        """Return the page; its form sends what the form before it has sent."""
        return desk.show(visit, "confirm.html", question=self, button=self.button, given=visit.fields)
