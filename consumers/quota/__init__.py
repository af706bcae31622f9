"""The quota stage admits or refuses job requests. It holds a unit for each admitted run, and settles it.

`faust -A consumers.quota worker` runs it.
"""

from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("consumers.quota.worker")
