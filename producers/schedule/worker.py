"""The Faust app of the schedule: wiring and nothing else."""

from infra.clock import SystemClock
from infra.postgres import Database
from infra.settings import settings
from producers.schedule.taker import Taker
from streams.faust_app import create_app
from streams.publisher import FaustPublisher

# The grain of every delay: shorter asks the database more often, longer publishes later.
_INTERVAL_S = 0.25

_settings = settings()

app = create_app("schedule", _settings)
# It reads no topic, so it needs neither a consumer nor a group; every worker of it takes what the others leave.
app.producer_only = True

taker = Taker(
    Database(_settings.database_url, size=_settings.database_pool_size), FaustPublisher(app), clock=SystemClock()
)


@app.timer(interval=_INTERVAL_S, name="schedule", traced=False)  # type: ignore[untyped-decorator]  # Faust's are
async def publish_due() -> None:
    """Publish what is due."""
    await taker.tick()
