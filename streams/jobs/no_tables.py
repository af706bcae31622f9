"""This manages the tables of apps that have none."""

from faust.tables import TableManager


class NoTables(TableManager):
    """It starts at once. Faust's own sleeps for a second first, so that tables can be added."""

    async def on_start(self) -> None:
        """Let the conductor go on: it waits until the tables are known."""
        await self._update_channels()
        await self.recovery.start()
