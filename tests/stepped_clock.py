"""A clock that the test sets, for whatever takes one."""


class Clock:
    """Seconds that stand still until the test moves them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
