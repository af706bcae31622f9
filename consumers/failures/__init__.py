"""The failures stage keeps each dead letter as a row of `failed_events`. There it is found and replayed from.

`faust -A consumers.failures worker` runs it.
"""

from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("consumers.failures.worker")
