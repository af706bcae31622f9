"""The policy of the stage that keeps what the transport buries."""

from infra.errors import DependencyDown
from streams.delivery.deliveries import Delivery, Hold
from streams.delivery.policy import RetryPolicy


class HoldPolicy(RetryPolicy):
    """The policy of the last stop: whatever fails, the stage holds and says why.

    Giving a dead letter up would write it to `dead-letters`, from where it came; losing it is not allowed. Nothing that
    a letter holds should make this stage fail (see `letters`), so a failure is an outage, or a bug in this stage that a
    deploy mends.
    """

    def outcome(self, error: Exception, delivery: Delivery, *, suspected: bool = False) -> Hold:  # noqa: ARG002
        """Return a hold, always."""
        if isinstance(error, DependencyDown):
            return Hold(error)
        down = DependencyDown("failures", f"a letter of {delivery.topic} was not kept: {type(error).__name__}: {error}")
        down.__cause__ = error
        return Hold(down)
