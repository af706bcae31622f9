"""The generation stage turns an accepted job into three activities, by one LLM call.

`faust -A consumers.generation worker` runs it.
"""

from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("consumers.generation.worker")
