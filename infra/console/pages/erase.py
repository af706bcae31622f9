"""An organization's texts are erased; a page says first how much there is."""

from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.routing import Route

from infra.console.asking import Question
from infra.console.desk import Desk
from infra.console.pages.organizations import address_of_organization
from infra.console.visits import Visit
from infra.operations.erase import Erased, Texts, erase_texts, find_texts
from infra.texts import STORABLE
from producers.cancellation import Cancellation
from producers.turns import Turns

# Short enough that whoever looks sees it move, and that another operator's step gets its turn.
_STEP: Final = timedelta(seconds=2)
_AGAIN: Final = "Repeat it once the topics' retention in the broker has passed, then run teamfit verify."


class _Of(BaseModel):
    """The organization whose texts are erased."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, STORABLE]
    after: UUID | None = None


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""
    heavy = Turns(1)

    async def found(visit: Visit) -> Texts:
        return await find_texts(desk.database, _Of.model_validate(visit.fields).id)

    async def choose(visit: Visit) -> Response:
        """Say what an erasure would touch, and ask."""
        texts = await found(visit)
        hint = f"This cannot be undone. Rows, times and numbers stay. {_AGAIN}"
        action = "/organization/erase/confirmed" if texts.anything else None
        question = _question(texts, "Erase its texts", hint if action else "There is nothing to erase.", action)
        return question.asked(desk, visit)

    async def act(visit: Visit) -> Response:
        """Erase some of its texts. The page of a step sends for the next one."""
        async with heavy.one():
            texts, so_far = await found(visit), Erased(0, 0)
            if texts.anything:
                cancellation = Cancellation(desk.database, desk.broker, desk.database.clock)
                after, by = _Of.model_validate(visit.fields).after, visit.session.subject
                so_far = await erase_texts(desk.database, cancellation, texts, operator=by, after=after, at_most=_STEP)
        if so_far.next is not None:
            whose = texts.organization_id
            back = address_of_organization(whose)
            return desk.show(visit, "erasing.html", organization_id=whose, so_far=so_far, back=back)
        return _question(texts, "Its texts are erased", _AGAIN, None).asked(desk, visit)

    return [desk.action("/organization/erase", choose), desk.action("/organization/erase/confirmed", act)]


def _question(texts: Texts, what: str, hint: str, action: str | None) -> Question:
    return Question(
        title=what,
        subject=f"organization {texts.organization_id}",
        effects=[
            ("Live jobs, cancelled first", f"{len(texts.live):,}"),
            ("Jobs", f"{texts.jobs:,}"),
            ("Activities", f"{texts.activities:,}"),
            ("Events", f"{texts.events:,}"),
            ("Failed events", f"{texts.failed_events:,}"),
            ("Early cancellations", f"{texts.cancellations:,}"),
        ],
        action=action,
        back=address_of_organization(texts.organization_id),
        hint=hint,
        button="Erase for good",
        heading="Rows that hold its texts, or held them",
    )
