"""A Celery worker sends the old task's calls on to the pipeline.

Services that call `send_task` and cannot change yet go on as they are.

    from celery import Celery
    from producers.celery_forward import forward_to_pipeline

    app = Celery(broker="redis://…")  # where the old services send
    forward_to_pipeline(app)

It needs `PIPELINE_URL`, the pipeline's `BROKER_URL` under another name, since `celery worker` takes that one for its
own. Celery acknowledges a call when the pipeline's broker has the request: if a worker dies before, the call is handed
out again; if it dies in between, the same event is sent twice, which is one job. While the broker is away Celery tries
again, for ever. A call whose arguments cannot be used fails in Celery, with the argument's name.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from infra.errors import DependencyDown
from producers.celery_compat import arguments_by_name, generate_custom_activities_task
from producers.celery_results import pipeline_url
from producers.client import InvalidArgument, JobRequests

NAME: Final = "generate_custom_activities"
ARGUMENTS: Final = ("organization_id", "team_id", "requirements")
"""The old task's arguments, in its order."""


class _CeleryApp(Protocol):
    def task(self, **options: Any) -> Callable[[Callable[..., None]], object]: ...  # noqa: ANN401 - Celery's own


def forward_to_pipeline(app: _CeleryApp, *, name: str = NAME, arguments: Sequence[str] = ARGUMENTS) -> None:
    """Give a Celery app the task of the old name, which sends each request on.

    Args:
        app: the Celery app whose worker runs it.
        name: the task's name, as services send it.
        arguments: the old task's, in its order. With `job_id` among them that is the job's ID, and `requirements` may
            be left to the job's row; without, the task's ID is the idempotency key: a task that runs twice is one job.
    """

    def forward(task: Any, /, *args: object, **kwargs: object) -> None:  # noqa: ANN401 - Celery's own, bound
        if "job_id" in arguments:
            given = arguments_by_name(arguments, args, kwargs, needed=())
            generate_custom_activities_task.apply_async(kwargs=given)
        else:
            given = arguments_by_name(arguments, args, kwargs, needed=ARGUMENTS)
            asyncio.run(_submit(str(task.request.id), given))

    app.task(
        bind=True,
        name=name,
        acks_late=True,
        reject_on_worker_lost=True,
        ignore_result=True,
        autoretry_for=(DependencyDown,),
        retry_backoff=True,
        max_retries=None,
    )(forward)


async def _submit(task_id: str, given: Mapping[str, object]) -> None:
    for name in sorted(set(given) - set(ARGUMENTS)):
        raise InvalidArgument(f"{name}: the task has no such argument; it takes {', '.join(ARGUMENTS)}")
    async with JobRequests.connect(pipeline_url(), source="celery") as requests:
        organization_id, team_id, requirements = (str(given[name]) for name in ARGUMENTS)
        await requests.submit(
            organization_id=organization_id, team_id=team_id, requirements=requirements, idempotency_key=task_id
        )
