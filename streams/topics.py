"""The topics, and which consumer groups read each. A topic is trimmed only of what all its groups acknowledged."""

from typing import Final

JOB_REQUESTS: Final = "job-requests"
JOB_ACCEPTED: Final = "job-accepted"
JOB_ACCEPTED_PRIORITY: Final = "job-accepted-priority"
JOB_EVENTS: Final = "job-events"
DEAD_LETTERS: Final = "dead-letters"

QUOTA: Final = "quota"
GENERATION: Final = "generation"
PROJECTION: Final = "projection"
FAILURES: Final = "failures"

CONSUMER_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    JOB_REQUESTS: (QUOTA, PROJECTION),
    JOB_ACCEPTED: (GENERATION,),
    JOB_ACCEPTED_PRIORITY: (GENERATION,),
    JOB_EVENTS: (PROJECTION, QUOTA),
    DEAD_LETTERS: (FAILURES,),
}
