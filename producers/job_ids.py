"""Services that know their idempotency key get the job's ID beforehand."""

from streams.jobs.job_ids import job_id_for

__all__ = ["job_id_for"]
