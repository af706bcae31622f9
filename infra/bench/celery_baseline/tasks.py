"""The task, and the app of workers and callers. Addresses come from BROKER_URL, DATABASE_URL and OPENAI_BASE_URL."""

import json
import os
from typing import Any

import openai
import psycopg
from celery import Celery, Task

app = Celery("teamfit_baseline", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    # Kinder than the defaults (an hour, and a look every 100 seconds), so that a killed worker's tasks come back while
    # the harness still watches.
    broker_transport_options={
        "visibility_timeout": 15,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)

_MESSAGE = "Compose exactly three team-building activities as JSON, for: {}"


class InvalidAnswer(ValueError):
    """The LLM's answer is not three activities."""


class _Customize(Task):  # type: ignore[misc]  # Celery has no types
    """Records the failure when the task has used up its retries."""

    def on_failure(self, exc: Exception, task_id: str, *_: object) -> None:
        with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=5) as connection:
            connection.execute(
                "UPDATE customization_jobs SET status = 'failed', error_message = %s, completed_at = now() "
                "WHERE job_id = %s",
                (str(exc), task_id),
            )


@app.task(  # type: ignore[untyped-decorator]  # Celery has no types
    bind=True,
    base=_Customize,
    name="customize",
    autoretry_for=(openai.OpenAIError, psycopg.OperationalError, InvalidAnswer),
    retry_backoff=1,
    retry_backoff_max=10,
    retry_jitter=True,
    max_retries=3,
)
def customize(self: Any, organization_id: str, requirements: str) -> None:  # noqa: ANN401 - the task's own request
    """Check the quota, ask the LLM, and save activities, charge and status in one transaction."""
    job_id = self.request.id
    with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=5) as connection:
        left = connection.execute(
            "SELECT s.monthly_quota - coalesce(u.charged, 0) FROM subscriptions AS s "
            "LEFT JOIN quota_usage AS u USING (organization_id) WHERE organization_id = %s",
            (organization_id,),
        ).fetchone()
        if left is None or left[0] <= 0:
            connection.execute(
                "UPDATE customization_jobs SET status = 'failed', error_message = 'quota exceeded' WHERE job_id = %s",
                (job_id,),
            )
            return
        connection.execute("UPDATE customization_jobs SET status = 'processing' WHERE job_id = %s", (job_id,))
    activities = _compose(requirements)
    with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=5) as connection:
        for activity in activities:
            connection.execute(
                "INSERT INTO customized_activities (job_id, title, description) VALUES (%s, %s, %s)",
                (job_id, activity["title"], activity["description"]),
            )
        connection.execute(
            "INSERT INTO quota_usage (organization_id, charged) VALUES (%s, 1) "
            "ON CONFLICT (organization_id) DO UPDATE SET charged = quota_usage.charged + 1",
            (organization_id,),
        )
        connection.execute(
            "UPDATE customization_jobs SET status = 'completed', completed_at = now() WHERE job_id = %s", (job_id,)
        )


def _compose(requirements: str) -> list[dict[str, str]]:
    client = openai.OpenAI(timeout=30)
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": _MESSAGE.format(requirements)}],
        response_format={"type": "json_object"},
    )
    try:
        activities: list[dict[str, str]] = json.loads(answer.choices[0].message.content or "")["activities"]
    except (ValueError, KeyError) as error:
        raise InvalidAnswer(str(error)) from error
    if len(activities) != 3:  # noqa: PLR2004 - what was asked for
        raise InvalidAnswer(f"{len(activities)} activities instead of three")
    return activities
