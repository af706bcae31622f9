"""A read-only check proves that nothing was lost, charged twice or saved twice.

It states the promises as invariants of the database.
"""

from infra.verify.checker import CheckTimedOut, verify
from infra.verify.report import Finding, Report, note

__all__ = ["CheckTimedOut", "Finding", "Report", "note", "verify"]
