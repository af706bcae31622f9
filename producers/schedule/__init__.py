"""The schedule: publishes what waits in `scheduled_events` (retries, delayed jobs) when it is due.

`faust -A producers.schedule worker` runs it.
"""

from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("producers.schedule.worker")
