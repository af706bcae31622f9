"""The pipeline replaces this design. One Celery task checks the quota, asks the LLM and saves.

It exists to be measured beside the pipeline, by the same harness (`make chaos`). Nothing of ours imports it: it runs
in a virtual environment of its own, because Celery is no dependency of the pipeline. It is set up as the guides
recommend for tasks that must not be lost (acknowledge late, reject when the worker is lost, prefetch one, retry with
backoff), and kinder than usual in one thing: a task that is not acknowledged is handed to another worker after 15
seconds, looked for every second, instead of an hour and every 100 seconds. That is safe here, because no task takes
longer.
"""
