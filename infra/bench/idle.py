"""Count the commands that an idle pipeline sends to its broker: `python -m infra.bench.idle`.

Starts one worker of each stage and the API without any work, and counts for a minute what MONITOR shows. Some plans of
managed brokers bill each command, some those that scripts call as well.
"""

import sys
import time
from collections import Counter

from redis import Redis

from infra.local.stack import Stack
from infra.settings import Settings

_SETTLE_S = 20.0  # what workers do when they start is not idling
_MEASURED_S = 60.0
_MONTH_S = 30 * 86_400


def count_commands(url: str, seconds: float) -> tuple[Counter[str], Counter[str]]:
    """Return the commands that clients send in so many seconds, and those that scripts call."""
    sent: Counter[str] = Counter()
    called: Counter[str] = Counter()
    with Redis.from_url(url) as client, client.monitor() as monitor:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            command = monitor.next_command()
            counted = called if command["client_type"] == "lua" else sent
            counted[command["command"].partition(" ")[0].upper()] += 1
    return sent, called


def main() -> None:
    """Print the commands by rate, and the sums."""
    with Stack(Settings(), durable=False) as stack:
        print(f"settling for {_SETTLE_S:.0f} s, then counting for {_MEASURED_S:.0f} s", file=sys.stderr)
        time.sleep(_SETTLE_S)
        sent, called = count_commands(stack.broker_address, _MEASURED_S)
    for counted, by in ((sent, "sent"), (called, "called by scripts")):
        for name, number in counted.most_common():
            print(f"{number / _MEASURED_S:6.2f}/s  {name}")
        rate = counted.total() / _MEASURED_S
        print(f"{rate:6.2f}/s  {by}: {rate * _MONTH_S / 1e6:.1f} million a month")


if __name__ == "__main__":
    main()
