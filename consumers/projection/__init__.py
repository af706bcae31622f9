"""Keeps the archive of facts and the read model that customers poll. `faust -A consumers.projection worker` runs it."""

from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("consumers.projection.worker")
