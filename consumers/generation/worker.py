"""The Faust app of the generation stage."""

import asyncio
from datetime import timedelta
from typing import Final
from uuid import uuid4

from consumers.generation.handlers import Generation
from consumers.generation.route import Route, delivery_time
from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.empty_hands import EmptyHands
from streams.jobs.controls import Controls
from streams.jobs.dispatch import Dispatcher, GivenBack, Slots
from streams.jobs.events import JobAccepted
from streams.jobs.faust_app import StageApp, create_app
from streams.jobs.stages import GENERATION, RUN_TOPICS
from streams.jobs.topics import expecting

_TOPICS = RUN_TOPICS[GENERATION]
# Four times in the time after which a silent worker's slots count no more.
_TELL_S = 5.0
# A run that ended leaves a slot. What takes it stands in `job-accepted` already, and the one after it has this long.
_LINGER: Final = timedelta(milliseconds=20)


def create(settings: Settings, database: Database | None = None) -> StageApp:
    """Make the stage's app, on this pool, or on one of its own.

    Raises:
        InvalidSetting: one that a call needs is missing. It ends the worker now instead of failing jobs then.
    """
    if settings.llm_endpoints is None:
        settings.require("openai_api_key", "openai_base_url", "model", "completion_format")
    settings.require("generation_timeout_s")
    settings.require("materials_token_budget", "max_completion_tokens", "max_tokens_per_job")
    app = create_app(GENERATION, settings, database)
    clock = app.database.clock
    route = Route.of(settings, app.database, clock, connections=len(_TOPICS) * settings.generation_concurrency)
    for line in route.lines:
        line.check_settings()
    generation = Generation(database=app.database, route=route, publisher=app.publisher, clock=clock, settings=settings)
    dispatcher = Dispatcher(app.database, app.publisher, window=settings.dispatch_window, linger=_LINGER)
    stage = app.stage(
        expecting(JobAccepted),
        dispatcher.after(generation.handle),
        dispatcher.after(generation.give_up),
        retries=GivenBack(app.database, app.database.clock, dispatcher),
        timeout=delivery_time(settings),
        asks={"llm": route.ask},
    )
    for topic in _TOPICS:
        app.feed(topic, stage, concurrency=settings.generation_concurrency)
    app.close_at_last(route.close)

    def slots() -> int:
        if stage.empty_hands.are_empty:
            return 1  # the fewest that can be told; no worker at all would mean a window of a hundred runs
        most = app.brake.orders.limit or settings.generation_concurrency
        return route.room(min(most, settings.generation_concurrency))

    def obey_gates(controls: Controls) -> None:
        """Ask again at once when an operator has opened a gate."""
        if route.open_gates({one.subject for one in controls.all if one.kind == "gate"}):
            stage.standstill.probe_now()

    _tell_slots(app, Slots(app.database, uuid4(), slots), dispatcher, stage.empty_hands)
    app.on_controls(obey_gates)
    app.endpoints = [line.gate.endpoint for line in route.lines]
    app.unreached = lambda: {line.gate.endpoint: line.unreached for line in route.lines if line.unreached is not None}
    return app


def _tell_slots(app: StageApp, slots: Slots, dispatcher: Dispatcher, hands: EmptyHands) -> None:
    """Say how many runs this worker takes at once: at its start, every few seconds, and when it takes none or some."""
    telling: set[asyncio.Task[None]] = set()
    one_by_one = asyncio.Lock()

    async def tell() -> None:
        try:
            async with one_by_one:
                await slots.tell()
        except DependencyDown:
            return  # the stage says so
        dispatcher.poke()

    # Not `tell` itself: what Faust's decorator returns is the whole timer.
    app.timer(interval=_TELL_S, name="slots", traced=False)(tell)
    app.task(tell)

    def tell_soon() -> None:
        telling.add(task := asyncio.create_task(tell(), name="slots"))
        task.add_done_callback(telling.discard)

    async def told() -> None:
        if telling:
            await asyncio.wait(telling)

    hands.on_change = tell_soon
    app.close_before_producer(dispatcher.close)
    app.close_first(told, slots.withdraw)
