"""Alembic reaches the database through SQLAlchemy's asyncpg dialect. One driver serves all."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from infra.postgres import Session, connect

# Any number will do, so long as it never changes: it keeps two deployments from migrating at the same time.
_ADVISORY_LOCK = 20_310_401


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, version_table="teamfit_schema_version")
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        context.run_migrations()


async def _run() -> None:
    async def connected() -> Session:
        return await connect(context.config.attributes["address"])

    # Unnamed statements, each prepared when it is run: SQLAlchemy's cache of them would not survive a pooler.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        connect_args={"async_creator_fn": connected, "prepared_statement_cache_size": 0},
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(_run())
