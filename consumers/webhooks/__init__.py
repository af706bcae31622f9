"""The webhooks stage tells customers' own servers how their jobs end.

`faust -A consumers.webhooks worker` runs it.
"""

from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("consumers.webhooks.worker")
