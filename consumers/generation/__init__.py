"""The generation stage: an accepted job becomes exactly three activities, by one call to an LLM.

`faust -A consumers.generation worker` runs it.
"""

from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("consumers.generation.worker")
