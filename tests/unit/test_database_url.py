"""`DATABASE_URL`, as services, platforms and people write it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from infra.database_url import read_database_url
from infra.errors import InvalidSetting


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    read_database_url.cache_clear()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # Neon
        (
            "postgresql://u:p@ep-x-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
            {"host": ["ep-x-pooler.eu-central-1.aws.neon.tech"], "port": [5432], "database": "neondb"},
        ),
        # Supabase, for Prisma
        ("postgres://postgres.ref:p@x.supabase.com:6543/postgres?pgbouncer=true", {"user": "postgres.ref"}),
        # Heroku
        ("postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d8", {"port": [5432], "password": "p"}),
        # Google Cloud SQL's sockets
        ("postgresql://u:p@/db?host=/cloudsql/project:region:one", {"host": ["/cloudsql/project:region:one"]}),
        ("postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/db", {"host": ["/var/run/postgresql"], "port": [5432]}),
        # Azure: the user holds an @
        ("postgresql://u%40server:p@server.postgres.database.azure.com/db?sslmode=require", {"user": "u@server"}),
        ("postgresql://u@server:p@server.postgres.database.azure.com/db", {"user": "u@server", "password": "p"}),
        # Several hosts
        (
            "postgresql://u:p@a:1,b,[::1]:3/db?target_session_attrs=read-write",
            {"host": ["a", "b", "::1"], "port": [1, 5432, 3], "target_session_attrs": "read-write"},
        ),
        # Drivers' names, and shouting
        ("postgresql+psycopg://u:p@h/db", {"host": ["h"]}),
        ("POSTGRESQL+ASYNCPG://u:p@h/db", {"host": ["h"]}),
        # Secrets with everything in them; a plus is a plus
        ("postgresql://u:p%40%2F%3A%3F%23%25+%F0%9F%94%91@h/db", {"password": "p@/:?#%+🔑"}),
        # Everything as a parameter, and nothing as a value
        ("postgresql://?host=h&user=u&password=p+%26&dbname=d&port=7", {"host": ["h"], "port": [7], "password": "p+&"}),
        ("postgresql://u:@h:/db?sslmode=&options=&&pgbouncer", {"host": ["h"], "port": [5432], "server_settings": {}}),
        ("postgresql:///db?options=-c%20x%3Dy", {"server_settings": {"options": "-c x=y"}}),
        ("postgresql://u@h/db?connect_timeout=3", {"timeout": 3.0}),
        ("postgresql://u@h/db?connect_timeout=0", {"timeout": 10.0}),
    ],
)
def test_what_services_hand_out_is_read(url: str, expected: dict[str, object]) -> None:
    """Each part ends where it belongs."""
    arguments = read_database_url(url).arguments
    assert {name: arguments.get(name) for name in expected} == expected


def test_a_pooler_may_be_named() -> None:
    """By the parameter of one driver or by the statement cache of another; else it is found by asking."""
    for parameter in ("pgbouncer=true", "statement_cache_size=0", "prepared_statement_cache_size=0", "pgbouncer=1"):
        assert read_database_url(f"postgresql://u@h/db?{parameter}").pooled is True
    for parameter in ("", "pgbouncer=false", "statement_cache_size=100", "pgbouncer="):
        assert read_database_url(f"postgresql://u@h/db?{parameter}").pooled is None


def test_parameters_of_other_drivers_are_ignored_and_named() -> None:
    """A platform makes the URL: what it says to others is no error, and a warning tells that nothing follows."""
    with capture_logs() as logged:
        read_database_url(
            "postgresql://u:s3cret@h/db?connection_limit=5&keepalives=1&supa=base&channel_binding=require"
        )
    assert {line["parameter"] for line in logged} == {"connection_limit", "keepalives", "supa", "channel_binding"}
    assert "s3cret" not in str(logged)


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("", "postgresql://"),
        ("host=h dbname=d password=s3cret", "postgresql://"),
        ("mysql://u:s3cret@h/db", "postgresql://"),
        ("jdbc:postgresql://h/db?password=s3cret", "postgresql://"),
        ('"postgresql://u:s3cret@h/db"', "postgresql://"),
        ("POSTGRES_URL=postgresql://u:s3cret@h/db", "repeats its own name, or another's"),
        ("export DATABASE_URL='postgres://u:s3cret@h/db'", "repeats its own name, or another's"),
        ("DATABASE_URL: postgresql://u:s3cret@h/db", "repeats its own name, or another's"),
        ("$DATABASE_URL", "placeholder"),
        ("${DATABASE_URL}", "placeholder"),
        ("postgresql://u:s3cret@${PGHOST}/db", "placeholder"),
        ("postgresql://postgres:[YOUR-PASSWORD]@db.x.supabase.co:5432/postgres", "placeholder"),
        ("postgresql://u:<password>@h/db", "placeholder"),
        ("postgresql://u:{{ password }}@h/db", "placeholder"),
        ("postgresql://u:s3cret@https://h/db", ":// twice"),
        ("postgresql://postgresql://u:s3cret@h/db", ":// twice"),
        ("postgres://u:s3cret@:5432/db", "empty or malformed host"),
        ("postgresql://u:s3cret/x@h/db", "%2F"),
        ("postgresql://u:s3cret%FF@h/db", "UTF-8"),
        ("postgresql://u:s3cret%00@h/db", "%00"),
        ("postgresql://u:s3cret@h:port/db", "a port"),
        ("postgresql://u:s3cret@h:99999/db", "a port"),
        ("postgresql://u:s3cret@a,,b/db", "host"),
        ("postgresql://u:s3cret@::1/db", "[IPV6]"),
        ("postgresql://u:s3cret@a,b/db?port=1,2,3", "3 ports for 2 hosts"),
        ("postgresql://u:s3cret@h/db?sslmode=required", "verify-full"),
        ("postgresql://u:s3cret@h/db?sslmod=require", "write sslmode"),
        ("postgresql://u:s3cret@h/db?sslaccept=strict", "sslrootcert"),
        ("postgresql://u:s3cret@h/db?target_session_attr=any", "write target_session_attrs"),
        ("postgresql://u:s3cret@h/db?target_session_attrs=master", "read-write"),
        ("postgresql://u:s3cret@h/db?connect_timeout=soon", "seconds"),
        ("postgresql://u:s3cret@h/db?pgbouncer=perhaps", "true or false"),
        ("postgresql://u:s3cret@h/db?statement_cache_size=none", "0 behind a pooler"),
        ("postgresql://u:s3cret@h/db?sslmode=verify-full&sslrootcert=/nowhere.pem", "/nowhere.pem"),
        ("postgresql://u:s3cret@h/db?sslcert=/nowhere.pem", "/nowhere.pem"),
        ("postgresql://u:s3cret@h/db?sslmode=require&sslrootcert=system", "verify-full"),
        ("postgresql://u:s3cret@h/db?sslnegotiation=direct", "sslmode=require"),
        ("postgresql://u:s3cret@h/db?ssl_min_protocol_version=SSLv3", "TLSv1.2"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(url: str, names: str) -> None:
    """The message begins with the variable, names the part and the fix, and repeats no secret."""
    with pytest.raises(InvalidSetting) as raised:
        read_database_url(url)
    message = str(raised.value)
    assert message.startswith("DATABASE_URL ")
    assert names in message
    assert "\n" not in message
    assert "s3cret" not in message


def test_without_a_file_only_the_full_check_trusts_the_systems_authorities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Any site has a certificate of theirs, so the host's name must be checked with it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "ssl" in read_database_url("postgresql://u@h/db?sslmode=verify-full").arguments
    with pytest.raises(InvalidSetting, match="sslrootcert"):
        read_database_url("postgresql://u@h/db?sslmode=verify-ca")


def test_a_process_without_a_name_says_that_the_user_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's account may have none, and asyncpg would end in a traceback about passwords."""

    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)
    with pytest.raises(InvalidSetting, match="names no user"):
        read_database_url("postgresql://h/db")
    monkeypatch.setenv("PGUSER", "somebody")
    assert "user" not in read_database_url("postgresql://h/db").arguments


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
# What begins with a quotation mark is taken for something that was pasted in its quotation marks.
_bare = _text.filter(lambda text: text[0] not in "'\"`\N{LEFT SINGLE QUOTATION MARK}\N{LEFT DOUBLE QUOTATION MARK}")
_host = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,8}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.from_regex(r"/[a-z]{1,8}(/[a-z:.]{1,8})?", fullmatch=True).map(lambda path: quote(path, safe="")),
)
_value = st.one_of(_bare.map(lambda text: quote(text, safe="")), st.just(""))
_parameter = st.one_of(
    st.sampled_from(
        [
            *(f"sslmode={mode}" for mode in ("disable", "allow", "prefer", "require", "verify-full", "")),
            *("channel_binding=require", "target_session_attrs=read-write", "connect_timeout=10", "pgbouncer=true"),
            *("application_name=teamfit", "options=-c%20geqo%3Doff", "keepalives=1", "gssencmode=disable"),
        ]
    ),
    st.tuples(st.sampled_from(["schema", "supa", "pool_timeout", "x"]), _value).map("=".join),
)


@dataclass
class Written:
    """A URL and what it says."""

    url: str
    user: str
    password: str
    hosts: list[str]
    ports: list[int]
    database: str


@st.composite
def _urls(draw: st.DrawFn) -> Written:
    user, password, database = draw(_bare), draw(_text), draw(_bare)
    hosts = draw(st.lists(_host, min_size=1, max_size=3))
    ports = [draw(st.one_of(st.none(), st.integers(1, 65_535))) for _ in hosts]
    places = ",".join(host + ("" if port is None else f":{port}") for host, port in zip(hosts, ports, strict=True))
    scheme = draw(st.sampled_from(["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"]))
    parameters = "&".join(draw(st.lists(_parameter, max_size=5)))
    encoded = [quote(part, safe="") for part in (user, password, database)]
    url = f"{scheme}://{encoded[0]}:{encoded[1]}@{places}/{encoded[2]}" + (f"?{parameters}" if parameters else "")
    plain = [re.sub(r"%2F", "/", host.strip("[]")).replace("%3A", ":") for host in hosts]
    return Written(url, user, password, plain, [port or 5432 for port in ports], database)


@settings(deadline=None)
@given(_urls())
def test_any_well_formed_url_is_read_as_it_is_meant(written: Written) -> None:
    """Whatever the secret, the hosts and the parameters are: the same parts come out, and the driver takes them."""
    with capture_logs():
        arguments = read_database_url(written.url).arguments
    assert (arguments["user"], arguments["password"], arguments["database"]) == (
        written.user,
        written.password,
        written.database,
    )
    assert (arguments["host"], arguments["port"]) == (written.hosts, written.ports)
    assert set(arguments.get("server_settings", {})) <= {"application_name", "options"}


@settings(deadline=None)
@given(st.text(max_size=60).map("postgresql://".__add__) | st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(url: str) -> None:
    """No text ends in a traceback."""
    assert _said(url).count("\n") == 0


def _said(url: str) -> str:
    try:
        read_database_url(url)
    except InvalidSetting as error:
        return str(error)
    return ""


URL = "postgresql://u:s3cret@h/db"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        *[(f"{mark}{URL}{mark}", "quotation mark") for mark in "'\"`"],
        (f"\N{LEFT DOUBLE QUOTATION MARK}{URL}\N{RIGHT DOUBLE QUOTATION MARK}", "quotation mark"),
        (f"psql '{URL}'", "psql"),
        (f"DATABASE_URL={URL}", "its own name"),
        (f"export DATABASE_URL={URL}", "its own name"),
        ("jdbc:postgresql://h/db?user=u&password=s3cret", "JDBC"),
        ("host=h dbname=db user=u password=s3cret", "list of parameters"),
        (f"{URL}?sslmode='require'", "sslmode"),
        ("postgresql://u:s3cret@h/'db'", "the database's name"),
        (f"{URL}?service=s3cret", "service"),
        (f"{URL};sslmode=require", "has a ; behind the database's name"),
        (f"{URL}?targetServerType=master", "target_session_attrs"),
        ("postgresql://u:s3cret@h\\db", "malformed host"),
        ("$(DATABASE_URL)", "placeholder"),
        ("postgresql://$(PGUSER):s3cret@h/db", "placeholder"),
        *[
            (f"{URL}?options={options}", "options")
            for options in ("'-c%20a%3Db'", "s3cret", "-c", "-c%20", "-c+a%3Db", "-c%20a", "--a", "-c%20a%3Db%20s3cret")
        ],
    ],
)
def test_what_is_no_url_or_cannot_be_followed_is_named(url: str, says: str) -> None:
    """One sentence names the part and the fix, and repeats no secret."""
    with pytest.raises(InvalidSetting) as refused:
        read_database_url(url)
    told = str(refused.value)
    assert told.startswith("DATABASE_URL ")
    assert says in told
    assert ";" in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    "options",
    [
        *("-c a=b", "-ca=b", "-c  a.b=c -c d=e", "--search_path=x", "-c a=b\\ c", "endpoint=ep-x", "-c a=", ""),
        *("-c timezone=Europe/Berlin", "-c statement_timeout=5s --geqo=off", "-B 16", "-e"),
    ],
)
def test_options_that_servers_and_poolers_read_are_sent(options: str) -> None:
    """As libpq would send them."""
    sent = read_database_url(f"{URL}?options={quote(options)}").arguments["server_settings"].get("options", "")
    assert sent == options.strip()


@pytest.mark.parametrize(
    ("written", "meant"),
    [("primary", "primary"), ("secondary", "standby"), ("any", "any")],
)
def test_which_of_several_hosts_is_meant_in_the_words_of_java(written: str, meant: str) -> None:
    """Whoever comes from JDBC keeps it; ignored, the first host that answers might be read-only."""
    arguments = read_database_url(f"postgresql://u@one,two/db?targetServerType={written}").arguments
    assert arguments["target_session_attrs"] == meant
