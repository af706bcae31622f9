"""For services that wish to know the ID of a job before they ask for it."""

from streams.jobs.job_ids import job_id_for

__all__ = ["job_id_for"]
