"""Errors of Postgres and asyncpg mean an outage, another schema, a pooler, or bad data."""

import ssl
from typing import Final

import asyncpg

from infra.errors import DependencyDown

# These are raised when the server is away, restarting, full or read-only, or does not let us, as opposed to when a
# query or a value is wrong. Each stands for those of its class of SQLSTATE, which poolers use for their own errors.
# TimeoutError (no free connection, no answer in time) is an OSError.
AWAY: tuple[type[BaseException], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    # Read-only after a failover; or a transaction stood still, or took so long that the server ended it.
    asyncpg.InvalidTransactionStateError,
    # A deadlock, a conflict: repeating the transaction is the documented answer, and no job's fault.
    asyncpg.TransactionRollbackError,
    # A lock that somebody keeps for longer than `lock_timeout`.
    asyncpg.ObjectNotInPrerequisiteStateError,
    # A plan from before a migration, which passes; or what a pooler or another kind of server does not do.
    asyncpg.FeatureNotSupportedError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
)
# Of one row, whose page is broken: the others go on.
CORRUPTED: tuple[type[Exception], ...] = (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError)
# The code is newer than the schema: every event would fail, and none of them is to blame.
OTHER_SCHEMA: tuple[type[Exception], ...] = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidSchemaNameError,
    # A constraint that ON CONFLICT names is not there.
    asyncpg.InvalidColumnReferenceError,
)
# Classes of SQLSTATE of the server itself, whatever code a newer one or a pooler has made up in them.
_OF_THE_SERVER: Final = ("08", "0A", "25", "28", "3D", "40", "53", "55", "57", "58", "XX")
# A named statement is on another server, or somebody else's: a pooler has come between.
STATEMENTS_ASTRAY: tuple[type[Exception], ...] = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
# The data of one row causes these: Postgres, or asyncpg before it, does not take a value of it. No other is affected.
DATA_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    UnicodeError,
    OverflowError,
    RecursionError,
)


def is_of_the_server(error: asyncpg.UnknownPostgresError) -> bool:
    """Return whether an error without a type of its own is about the server."""
    return str(error.sqlstate or "").startswith(_OF_THE_SERVER)


def down(error: BaseException) -> DependencyDown:
    """Return an outage that says in one line what is wrong and where to look."""
    return DependencyDown("postgres", " ".join(_explained(error).split()))


def _explained(error: BaseException) -> str:
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and isinstance(error.__cause__, asyncpg.PostgresError):
        error = error.__cause__  # what the server, or a pooler, said before it hung up
    match error:
        case ssl.SSLCertVerificationError():
            return f"the certificate of Postgres is refused: {error.verify_message}; check sslrootcert in DATABASE_URL"
        case ssl.SSLError():
            return f"TLS with Postgres fails: {error.reason or error}; check sslmode in DATABASE_URL"
        # asyncpg has no type of its own for this answer.
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return (
                "Postgres has no TLS, which sslmode in DATABASE_URL asks for: turn it on, or use sslmode=prefer; or "
                "what listens there is no Postgres: check host and port"
            )
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"Postgres refuses the login: {error}; check user, password and sslmode in DATABASE_URL"
        case asyncpg.InvalidCatalogNameError():
            return f"Postgres has no such database: {error}; check DATABASE_URL"
        case asyncpg.ProtocolViolationError():
            # Servers do not say this of what asyncpg sends: it is how pgbouncer says anything.
            return f"the pooler before Postgres refuses: {error}; check its settings, and those in DATABASE_URL"
        case asyncpg.InsufficientResourcesError():
            return f"Postgres is full: {error}; lower TEAMFIT_DATABASE_POOL_SIZE, or raise its limits"
        case asyncpg.InsufficientPrivilegeError():
            return f"Postgres refuses: {error}; check the rights of the user in DATABASE_URL"
        case asyncpg.LockNotAvailableError():
            return f"Postgres keeps a lock for somebody else: {error}; see pg_locks, and lock_timeout of this user"
        case asyncpg.FeatureNotSupportedError():
            return f"Postgres does not do this: {error}; after a migration it passes, else look at what stands between"
        case TimeoutError():
            more = f": {error}" if str(error) else ""
            return (
                f"Postgres is away, or all connections are taken: no answer in time{more}; check host and port in "
                "DATABASE_URL"
            )
        case _:
            return f"Postgres is away: {type(error).__name__}: {error}; check DATABASE_URL"
