"""The URLs that managed Postgres and Redis services hand out, in the forms of their consoles and documentation.

Each names the place that its service means; what cannot be followed is named with the fix.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

import pytest

from infra.database_url import read_database_url
from infra.errors import InvalidSetting
from streams.jobs.faust_app import check_broker_url
from streams.redis.address import BrokerAddress

_TLS: Final = ("ssl", "dsn")

# The URL, then what it says: host, port, user, password, database, whether it speaks of TLS, and of a pooler.
POSTGRES: Final[dict[str, tuple[str, tuple[str, int, str, str, str | None, bool, bool | None]]]] = {
    "Heroku": (
        "postgres://uf2k:p1b6@c9srcab37moub2.cluster-czrs8kj4isg7.us-east-1.rds.amazonaws.com:5432/d5vq",
        ("c9srcab37moub2.cluster-czrs8kj4isg7.us-east-1.rds.amazonaws.com", 5432, "uf2k", "p1b6", "d5vq", False, None),
    ),
    "Heroku, TLS asked for": (
        "postgres://u:p@ec2-3-4-5-6.eu-west-1.compute.amazonaws.com:5432/d1?sslmode=no-verify",
        ("ec2-3-4-5-6.eu-west-1.compute.amazonaws.com", 5432, "u", "p", "d1", True, None),
    ),
    "Supabase, direct": (
        "postgresql://postgres:p%40ss@db.abcdefghijklmnop.supabase.co:5432/postgres",
        ("db.abcdefghijklmnop.supabase.co", 5432, "postgres", "p@ss", "postgres", False, None),
    ),
    "Supabase, transaction pooler": (
        "postgresql://postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true",
        ("aws-0-eu-central-1.pooler.supabase.com", 6543, "postgres.abcdefgh", "pw", "postgres", False, True),
    ),
    "Supabase, Prisma's limit": (
        "postgres://postgres.ref:pw@aws-0-us-east-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
        ("aws-0-us-east-1.pooler.supabase.com", 6543, "postgres.ref", "pw", "postgres", False, True),
    ),
    "Neon": (
        "postgresql://alex:AbC123dEf@ep-cool-darkness-123456.us-east-2.aws.neon.tech/dbname?sslmode=require",
        ("ep-cool-darkness-123456.us-east-2.aws.neon.tech", 5432, "alex", "AbC123dEf", "dbname", True, None),
    ),
    "Neon, pooled": (
        "postgresql://alex:x@ep-cool-darkness-1-pooler.us-east-2.aws.neon.tech/db?sslmode=require&channel_binding=require",
        ("ep-cool-darkness-1-pooler.us-east-2.aws.neon.tech", 5432, "alex", "x", "db", True, None),
    ),
    "Neon, endpoint in options": (
        "postgresql://alex:x@ep-cool.us-east-2.aws.neon.tech/db?sslmode=require&options=endpoint%3Dep-cool",
        ("ep-cool.us-east-2.aws.neon.tech", 5432, "alex", "x", "db", True, None),
    ),
    "RDS": (
        "postgresql://teamfit:p%2Fw%3D@teamfit.c9akciq32.eu-west-1.rds.amazonaws.com:5432/teamfit?sslmode=verify-full",
        ("teamfit.c9akciq32.eu-west-1.rds.amazonaws.com", 5432, "teamfit", "p/w=", "teamfit", True, None),
    ),
    "RDS Proxy": (
        "postgresql://teamfit:x@teamfit.proxy-c9akciq32.eu-west-1.rds.amazonaws.com:5432/teamfit?sslmode=require",
        ("teamfit.proxy-c9akciq32.eu-west-1.rds.amazonaws.com", 5432, "teamfit", "x", "teamfit", True, None),
    ),
    "Azure, flexible": (
        "postgresql://teamfit:x@teamfit.postgres.database.azure.com:5432/teamfit?sslmode=require",
        ("teamfit.postgres.database.azure.com", 5432, "teamfit", "x", "teamfit", True, None),
    ),
    "Azure, single server": (
        "postgresql://teamfit%40srv:x@srv.postgres.database.azure.com:5432/teamfit?sslmode=require",
        ("srv.postgres.database.azure.com", 5432, "teamfit@srv", "x", "teamfit", True, None),
    ),
    "Azure, with its pgbouncer": (
        "postgresql://teamfit:x@teamfit.postgres.database.azure.com:6432/teamfit?sslmode=require",
        ("teamfit.postgres.database.azure.com", 6432, "teamfit", "x", "teamfit", True, None),
    ),
    "Aiven": (
        "postgres://avnadmin:AVNS_x@pg-1-acme.a.aivencloud.com:12691/defaultdb?sslmode=require",
        ("pg-1-acme.a.aivencloud.com", 12691, "avnadmin", "AVNS_x", "defaultdb", True, None),
    ),
    "DigitalOcean": (
        "postgresql://doadmin:AVNS_y@db-postgresql-fra1-1-do-user-1-0.c.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
        (
            "db-postgresql-fra1-1-do-user-1-0.c.db.ondigitalocean.com",
            25060,
            "doadmin",
            "AVNS_y",
            "defaultdb",
            True,
            None,
        ),
    ),
    "Railway, private": (
        "postgresql://postgres:x@postgres.railway.internal:5432/railway",
        ("postgres.railway.internal", 5432, "postgres", "x", "railway", False, None),
    ),
    "Railway, public": (
        "postgresql://postgres:x@viaduct.proxy.rlwy.net:41217/railway",
        ("viaduct.proxy.rlwy.net", 41217, "postgres", "x", "railway", False, None),
    ),
    "Render, internal": (
        "postgresql://user:x@dpg-abc123-a/teamfit_db",
        ("dpg-abc123-a", 5432, "user", "x", "teamfit_db", False, None),
    ),
    "Render, external": (
        "postgres://user:x@dpg-abc123-a.frankfurt-postgres.render.com/teamfit_db?ssl=true",
        ("dpg-abc123-a.frankfurt-postgres.render.com", 5432, "user", "x", "teamfit_db", True, None),
    ),
    "Fly.io": (
        "postgres://app:x@top2.nearest.of.app-db.internal:5432/app?sslmode=disable",
        ("top2.nearest.of.app-db.internal", 5432, "app", "x", "app", True, None),
    ),
    "Crunchy Bridge": (
        "postgres://application:x@p.abc.db.postgresbridge.com:5432/postgres",
        ("p.abc.db.postgresbridge.com", 5432, "application", "x", "postgres", False, None),
    ),
    "Cloud SQL, an address": (
        "postgresql://teamfit:x@10.20.0.3:5432/teamfit",
        ("10.20.0.3", 5432, "teamfit", "x", "teamfit", False, None),
    ),
    "Timescale": (
        "postgres://tsdbadmin:x@abc.def.tsdb.cloud.timescale.com:31234/tsdb?sslmode=require",
        ("abc.def.tsdb.cloud.timescale.com", 31234, "tsdbadmin", "x", "tsdb", True, None),
    ),
    "Cockroach-like, a cluster's name": (
        "postgresql://u:x@free-tier.gcp.cockroachlabs.cloud:26257/defaultdb?sslmode=require&options=--cluster%3Dcool-1",
        ("free-tier.gcp.cockroachlabs.cloud", 26257, "u", "x", "defaultdb", True, None),
    ),
    "Prisma Postgres": (
        "postgres://u:sk_x@db.prisma.io:5432/?sslmode=require",
        ("db.prisma.io", 5432, "u", "sk_x", None, True, None),
    ),
    "Nile": (
        "postgres://018f:x@eu-central-1.db.thenile.dev:5432/teamfit",
        ("eu-central-1.db.thenile.dev", 5432, "018f", "x", "teamfit", False, None),
    ),
    "Xata": (
        "postgresql://ws:xau_x@eu-central-1.sql.xata.sh:5432/teamfit:main?sslmode=require",
        ("eu-central-1.sql.xata.sh", 5432, "ws", "xau_x", "teamfit:main", True, None),
    ),
    "Scaleway": (
        "postgres://u:x@51.159.1.1:21489/rdb?sslmode=verify-full&sslrootcert=system",
        ("51.159.1.1", 21489, "u", "x", "rdb", True, None),
    ),
    "Clever Cloud": (
        "postgresql://uabc:x@babc-postgresql.services.clever-cloud.com:50013/babc",
        ("babc-postgresql.services.clever-cloud.com", 50013, "uabc", "x", "babc", False, None),
    ),
    "ElephantSQL, a last slash": (
        "postgres://uabc:x@rogue.db.elephantsql.com/uabc/",
        ("rogue.db.elephantsql.com", 5432, "uabc", "x", "uabc", False, None),
    ),
    "Aurora, DSQL": (
        "postgresql://admin:h%3A443%2F%3FAction%3DDbConnect%26X-Amz@abc.dsql.us-east-1.on.aws/postgres?sslmode=require",
        ("abc.dsql.us-east-1.on.aws", 5432, "admin", "h:443/?Action=DbConnect&X-Amz", "postgres", True, None),
    ),
    "AlloyDB, by a socket": (
        "postgresql:///teamfit?host=/cloudsql/acme:eu:one&user=teamfit&password=x",
        ("/cloudsql/acme:eu:one", 5432, "teamfit", "x", "teamfit", False, None),
    ),
    "CloudNativePG": (
        "postgresql://app:x@cluster-rw.default:5432/app",
        ("cluster-rw.default", 5432, "app", "x", "app", False, None),
    ),
    "IPv6, of a link": (
        "postgres://u:x@[fe80::1%25eth0]:5432/d",
        ("fe80::1%eth0", 5432, "u", "x", "d", False, None),
    ),
    "Java's, without its prefix": (
        "postgresql://u:x@h.example.com/d?prepareThreshold=0&reWriteBatchedInserts=true&currentSchema=public",
        ("h.example.com", 5432, "u", "x", "d", False, True),
    ),
    "pgx": (
        "postgres://u:x@h.example.com/d?sslmode=require&statement_cache_mode=describe&pool_max_conns=10",
        ("h.example.com", 5432, "u", "x", "d", True, None),
    ),
    "node-postgres": (
        "postgres://u:x@h.example.com/d?sslmode=require&uselibpqcompat=true",
        ("h.example.com", 5432, "u", "x", "d", True, None),
    ),
    "SQLAlchemy's asyncpg": (
        "postgresql+asyncpg://u:x@h.example.com:5432/d?prepared_statement_cache_size=0&ssl=require",
        ("h.example.com", 5432, "u", "x", "d", True, True),
    ),
    "Vercel": (
        "postgres://default:x@ep-1-pooler.us-east-1.aws.neon.tech:5432/verceldb?sslmode=require&supa=base-pooler.x",
        ("ep-1-pooler.us-east-1.aws.neon.tech", 5432, "default", "x", "verceldb", True, None),
    ),
}

# The URL, then host, port, user, password, database, and the scheme.
REDIS: Final[dict[str, tuple[str, tuple[str, int, str | None, str | None, int, str]]]] = {
    "Heroku, TLS": (
        "rediss://:p4a1@ec2-1-2-3-4.compute-1.amazonaws.com:6700?ssl_cert_reqs=none",
        ("ec2-1-2-3-4.compute-1.amazonaws.com", 6700, None, "p4a1", 0, "rediss"),
    ),
    "Heroku, as Celery wants it": (
        "rediss://:p4a1@ec2-1-2-3-4.compute-1.amazonaws.com:6700/0?ssl_cert_reqs=CERT_NONE",
        ("ec2-1-2-3-4.compute-1.amazonaws.com", 6700, None, "p4a1", 0, "rediss"),
    ),
    "Heroku, older": (
        "redis://h:p4a1@ec2-1-2.compute-1.amazonaws.com:6700",
        ("ec2-1-2.compute-1.amazonaws.com", 6700, "h", "p4a1", 0, "redis"),
    ),
    "Upstash": (
        "rediss://default:AbCd@eu2-cool-cat-30123.upstash.io:30123",
        ("eu2-cool-cat-30123.upstash.io", 30123, "default", "AbCd", 0, "rediss"),
    ),
    "ElastiCache": (
        "redis://teamfit.abc123.0001.euw1.cache.amazonaws.com:6379",
        ("teamfit.abc123.0001.euw1.cache.amazonaws.com", 6379, None, None, 0, "redis"),
    ),
    "ElastiCache, TLS and a user": (
        "rediss://teamfit:x%2Fy@master.teamfit.abc123.euw1.cache.amazonaws.com:6379/0",
        ("master.teamfit.abc123.euw1.cache.amazonaws.com", 6379, "teamfit", "x/y", 0, "rediss"),
    ),
    "ElastiCache, serverless": (
        "rediss://cache-abc.serverless.euw1.cache.amazonaws.com:6379?cluster=true",
        ("cache-abc.serverless.euw1.cache.amazonaws.com", 6379, None, None, 0, "rediss"),
    ),
    "MemoryDB": (
        "rediss://u:x@clustercfg.teamfit.abc.memorydb.eu-west-1.amazonaws.com:6379?cluster=true",
        ("clustercfg.teamfit.abc.memorydb.eu-west-1.amazonaws.com", 6379, "u", "x", 0, "rediss"),
    ),
    "Memorystore": ("redis://10.0.0.3:6379/0", ("10.0.0.3", 6379, None, None, 0, "redis")),
    "Memorystore, with AUTH": ("redis://:uuid-x@10.0.0.3:6379", ("10.0.0.3", 6379, None, "uuid-x", 0, "redis")),
    "Memorystore, TLS": ("rediss://:uuid-x@10.0.0.3:6378", ("10.0.0.3", 6378, None, "uuid-x", 0, "rediss")),
    "Azure Cache": (
        "rediss://:aBc%2BdEf%2Fg%3D@teamfit.redis.cache.windows.net:6380/0",
        ("teamfit.redis.cache.windows.net", 6380, None, "aBc+dEf/g=", 0, "rediss"),
    ),
    "Azure Cache, the = as it is": (
        "rediss://:aBcdEfg=@teamfit.redis.cache.windows.net:6380",
        ("teamfit.redis.cache.windows.net", 6380, None, "aBcdEfg=", 0, "rediss"),
    ),
    "Azure Managed Redis": (
        "rediss://:x=@teamfit.westeurope.redis.azure.net:10000",
        ("teamfit.westeurope.redis.azure.net", 10000, None, "x=", 0, "rediss"),
    ),
    "Aiven": (
        "rediss://default:AVNS_x@valkey-1-acme.a.aivencloud.com:12692",
        ("valkey-1-acme.a.aivencloud.com", 12692, "default", "AVNS_x", 0, "rediss"),
    ),
    "DigitalOcean": (
        "rediss://default:AVNS_y@db-valkey-fra1-1-do-user-1-0.c.db.ondigitalocean.com:25061",
        ("db-valkey-fra1-1-do-user-1-0.c.db.ondigitalocean.com", 25061, "default", "AVNS_y", 0, "rediss"),
    ),
    "Railway": (
        "redis://default:x@redis.railway.internal:6379",
        ("redis.railway.internal", 6379, "default", "x", 0, "redis"),
    ),
    "Render, internal": ("redis://red-abc123:6379", ("red-abc123", 6379, None, None, 0, "redis")),
    "Render, external": (
        "rediss://red-abc123:x@frankfurt-keyvalue.render.com:6379",
        ("frankfurt-keyvalue.render.com", 6379, "red-abc123", "x", 0, "rediss"),
    ),
    "Redis Cloud": (
        "redis://default:x@redis-12345.c55.eu-central-1-1.ec2.redns.redis-cloud.com:12345",
        ("redis-12345.c55.eu-central-1-1.ec2.redns.redis-cloud.com", 12345, "default", "x", 0, "redis"),
    ),
    "Fly.io's Upstash": (
        "redis://default:x@fly-teamfit.upstash.io:6379",
        ("fly-teamfit.upstash.io", 6379, "default", "x", 0, "redis"),
    ),
    "Scaleway": ("rediss://u:x@51.15.0.1:6379", ("51.15.0.1", 6379, "u", "x", 0, "rediss")),
    "Clever Cloud": (
        "redis://:x@babc-redis.services.clever-cloud.com:3005",
        ("babc-redis.services.clever-cloud.com", 3005, None, "x", 0, "redis"),
    ),
    "in capitals": ("REDISS://:x@H.example.com:6380/0/", ("h.example.com", 6380, None, "x", 0, "rediss")),
    "IPv6": ("redis://u:x@[2001:db8::1]:6380", ("2001:db8::1", 6380, "u", "x", 0, "redis")),
    "IPv6, of a link": ("redis://u:x@[fe80::1%25eth0]", ("fe80::1%eth0", 6379, "u", "x", 0, "redis")),
    "Heroku, Mini": (
        "rediss://:p@ec2-1.eu-west-1.compute.amazonaws.com:31330/0?ssl_check_hostname=false&ssl_cert_reqs=none",
        ("ec2-1.eu-west-1.compute.amazonaws.com", 31330, None, "p", 0, "rediss"),
    ),
    "in Compose": ("redis://valkey:6379/1\n", ("valkey", 6379, None, None, 1, "redis")),
    "in Kubernetes": (
        "redis://:x@redis-master.default.svc.cluster.local:6379/0",
        ("redis-master.default.svc.cluster.local", 6379, None, "x", 0, "redis"),
    ),
    "Sentinels of Bitnami's chart": (
        "redis://:x@redis.default.svc:26379/0?sentinel=mymaster",
        ("redis.default.svc", 26379, None, "x", 0, "redis"),
    ),
}

BROKER_REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "Upstash, over HTTP": ("https://eu2-cool-cat-30123.upstash.io", "https:// is not Redis"),
    "Upstash's command": ("redis-cli --tls -u redis://default:s3cret@eu2.upstash.io:6379", "keep the URL behind -u"),
    "Azure, for .NET": (
        "teamfit.redis.cache.windows.net:6380,password=s3cret=,ssl=True,abortConnect=False",
        "write rediss://:PASSWORD@HOST:PORT",
    ),
    "ElastiCache, a host alone": ("master.teamfit.abc.euw1.cache.amazonaws.com:6379", "it has no scheme"),
    "Railway, for ioredis": (
        "redis://default:s3cret@redis.railway.internal:6379?family=0",
        "unknown parameter 'family'",
    ),
    "Railway, not filled in": (
        "redis://default:${{Redis.REDIS_PASSWORD}}@redis.railway.internal:6379",
        "a placeholder",
    ),
    "redis-py's parameter": ("redis://:s3cret@h:6379/0?decode_responses=true", "unknown parameter 'decode_responses'"),
    "Valkey's scheme": ("valkeys://default:s3cret@h:6379", "rediss:// with TLS"),
    "Go's parameter": ("rediss://:s3cret@h:6379?insecureSkipVerify=true", "unknown parameter 'insecureSkipVerify'"),
    "Predis' scheme": ("tls://:s3cret@h:6379", "rediss:// with TLS"),
    "Lettuce's Sentinels": ("redis-sentinel://s3cret@h:26379,i:26379#mymaster", "?sentinel=<master's name>"),
    "StackExchange's Sentinels": ("h:26379,serviceName=m,password=s3cret", "write rediss://:PASSWORD@HOST:PORT"),
    "phpredis' socket": ("redis-socket:///run/valkey.sock", "unix:///run/valkey.sock"),
    "several servers that are no Cluster": (
        "redis://:s3cret@h:6379,i:6379",
        "need sentinel=<master's name> or cluster",
    ),
    "a comment behind it": ("redis://:s3cret@h:6379 # ours", "it has a '#'"),
    "quotation marks": ("'redis://:s3cret@h:6379'", "it is in quotation marks"),
    "a time with a space": ("redis://:s3cret@h:6379?lease=15 s", "lease='15 s' must be a time such as 250ms"),
    "Kafka with TLS": ("kafka+ssl://s3cret@h:9092", "kafka+ssl:// is not Redis"),
    "Azure's key, as it is": ("rediss://:aB/c+s3cret=@h.redis.cache.windows.net:6380", "%2F"),
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    read_database_url.cache_clear()


@pytest.mark.parametrize("service", POSTGRES)
def test_a_database_is_found(service: str) -> None:
    """Host, port, login, database, TLS and pooler are what the service says."""
    url, expected = POSTGRES[service]
    address = read_database_url(url)
    arguments: Mapping[str, Any] = address.arguments
    assert (
        arguments["host"][0],
        arguments["port"][0],
        arguments["user"],
        arguments.get("password"),
        arguments.get("database"),
        any(name in arguments for name in _TLS),
        address.pooled,
    ) == expected


@pytest.mark.parametrize("service", REDIS)
def test_a_broker_is_found(service: str) -> None:
    """Host, port, login and database are what the service says."""
    url, expected = REDIS[service]
    check_broker_url(url)
    address = BrokerAddress.parse(url)
    (host, port), *_ = address.hosts
    assert (host, port, address.username, address.password, address.database, address.scheme) == expected


@pytest.mark.parametrize("url", ["kafka://b1:9092,b2:9092", "KAFKA://b1:9092;b2:9092", "aiokafka://b1"])
def test_kafka_is_left_to_faust(url: str) -> None:
    """A scheme is the same in capitals."""
    check_broker_url(url)


@pytest.mark.parametrize("service", BROKER_REFUSED)
def test_what_cannot_be_followed_is_named(service: str) -> None:
    """With the variable and the fix, and without the password."""
    url, says = BROKER_REFUSED[service]
    with pytest.raises(InvalidSetting) as refused:
        check_broker_url(url)
    assert str(refused.value).startswith("BROKER_URL cannot be used: ")
    assert says in str(refused.value)
    assert "s3cret" not in str(refused.value)
