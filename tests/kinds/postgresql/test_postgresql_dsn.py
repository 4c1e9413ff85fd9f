"""What a DSN means: the same as to libpq, whose own parser is asked, for every parameter that libpq knows."""

import random
from typing import Final

import pytest
from connection_exporter.config import ConfigError
from connection_exporter.config.url import parse_host
from connection_exporter.kinds import load_text
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.kinds.postgresql.dsn import parse_dsn
from support.libpq import libpq


def read(dsn: str, keys: str = "") -> PostgresqlConfig:
    config = load_text(f'services: {{it: {{kind: postgresql, dsn: "${{DSN}}"{keys}}}}}', environ={"DSN": dsn})
    service = config.services["it"]
    assert isinstance(service, PostgresqlConfig)
    return service


def meant(dsn: str) -> dict[str, str] | None:
    """Return what libpq makes of ``dsn``, as far as it could connect with it."""
    found = {key: value for key, value in (libpq(dsn) or {"": ""}).items() if value}
    for key in ("host", "port"):
        if not found.get(key, "").strip(","):
            found.pop(key, None)
    try:
        for host in filter(None, found.get("host", "").split(",")):
            parse_host(host)
    except ValueError:
        return None
    ports = found.get("port", "").split(",")
    return found if libpq(dsn) is not None and all(not port or port.isdecimal() for port in ports) else None


DSNS: Final = (
    "postgresql://",
    "postgres://db",
    "postgresql://me:p%40%2F%3F@db:1234/app",
    "postgresql://me:p?w#d@db/app",
    "postgresql://me:12?34@db/app",
    "postgresql://:only@db",
    "postgresql://127.0.0.1/app?user=me@srv&password=a@b:c/d",
    "postgresql://db/app?password=a+b%2B&user=%C3%A9",
    "postgresql://[::1]:5433/app",
    "postgresql://h1:1,[::1],h3:3/app",
    "postgresql://h1,h2/app?port=5433",
    "postgresql://%2Fvar%2Frun%2Fpostgresql/app",
    "postgresql:///app?host=/var/run/postgresql&port=5433",
    "postgresql://db/app?host=a,b&port=1,2&hostaddr=10.0.0.1,::1",
    "postgresql://db/app#1?ssl=true",
    "postgresql://db/app?sslmode=require&sslmode=verify-full",
    "postgresql://db/app?options=-c%20search_path%3Da%2Cb&connect_timeout=10",
    "postgresql://db/?target_session_attrs=read-write&channel_binding=require",
    "host=db port=5433 user=me password=secret dbname=app",
    "  host = db\n\tuser='me'  ",
    r"password='it\'s a \\ secret' user=a\ b",
    "password=a'b user=me",
    "host='db'user='me'",
    "host=a,b port=1,2",
    "password= user=me",
    "password=a=b",
    "requiressl=1",
)


@pytest.mark.parametrize("dsn", DSNS)
def test_a_dsn_means_what_it_means_to_libpq(dsn: str) -> None:
    """Every parameter, in both forms."""
    assert meant(dsn) is not None
    assert parse_dsn(dsn) == meant(dsn)
    read(dsn)


# fmt: off
CREDENTIALS: Final = ("", "u@", "u:p@", "u:s3cret%40x@", ":p@", "u:p?q@", "u:p#q@", "u:1?2@", "@")
HOSTS: Final = (
    "h", "h1:1", "[::1]", "[::1]:7", "", "10.0.0.1:5", "%2Ftmp", "h:", ":9", "h%2Ch", "h:x", "::1", "[h", "h=",
)
PATHS: Final = (
    "", "/", "/app", "/a%20b", "/a/b?", "/a@b?", "/?host=x", "/?host=/run/pg&port=5,6", "?port=5", "/?user=a@b",
    "/?password=a+b%zz", "/?password=a@b:c/d?e&dbname=z", "/?hostaddr=1.2.3.4,::1", "/?s3cret", "/?x=%00",
)
WORDS: Final = (
    "a", "'a b'", r"'s3cret\'b'", r"a\ b", "'", "''", "\\", "'x'y", "é", "/tmp", "a,b", "1,2", "a=b", " ", "\t", "=",
    "host", "port", "user", "password", "dbname", "hostaddr", "'s3cret",
)
PIECES: Final = (
    *WORDS, "postgresql://", "POSTGRES://", "mysql://", "@", ":", "/", "?", "&", "%40", "%zz", "[", "]", "#", "+",
)
# fmt: on


def some(rand: random.Random) -> str:
    """Return a DSN that is a URL, a list of pairs, or neither."""
    kind = rand.randrange(3)
    if kind == 0:
        hosts = ",".join(rand.choices(HOSTS, k=rand.choice((1, 1, 2, 3))))
        return f"postgresql://{rand.choice(CREDENTIALS)}{hosts}{rand.choice(PATHS)}"
    if kind == 1:
        return rand.choice(("", " ")).join(
            f"{rand.choice(WORDS)}{rand.choice(('=', ' = ', ' '))}{rand.choice(WORDS)}"
            for _ in range(rand.randrange(1, 4))
        )
    return "".join(rand.choices(PIECES, k=rand.randrange(12)))


def test_random_dsns_are_read_as_libpq_reads_them_or_refused_without_a_secret() -> None:
    """What libpq can connect with is the same here, or refused; no text crashes the parser, and no error repeats it."""
    rand, same, refusals = random.Random(11), 0, list[str]()
    for _ in range(8_000):
        dsn = some(rand)
        try:
            ours = parse_dsn(dsn)
        except ValueError as error:
            refusals.append(str(error))
            continue
        theirs = meant(dsn)
        if theirs is not None and not _has_question_mark_in_host(dsn) and not dsn.endswith((" ", "\t")):
            assert ours == theirs, dsn
            same += 1
    assert same > 1_000
    assert all(refusal.startswith("dsn: ") and "s3cret" not in refusal for refusal in refusals)


def _has_question_mark_in_host(dsn: str) -> bool:
    """Return whether libpq would look for the host behind an ``@`` in the query: it would send it the password."""
    authority = dsn.partition("://")[2].partition("/")[0]
    return "?" in authority and "@" in authority.partition("?")[2]


def test_random_dsns_never_crash_a_config_and_never_lead_to_a_host_that_was_not_written() -> None:
    """A valid config connects to a host whose name is in the DSN, or to localhost; an error has no secret."""
    rand, valid, refusals = random.Random(12), 0, list[str]()
    for _ in range(1_500):
        dsn = some(rand)
        try:
            it = read(dsn)
        except ConfigError as error:
            refusals.append(str(error))
            continue
        valid += 1
        for target in it.targets:
            assert target.host in ("localhost", "/tmp", "é") or target.host in dsn, dsn
    assert valid > 100
    assert not any("s3cret" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        ("POSTGRESQL://me@db/app", "db:5432"),
        ("postgresql+asyncpg://me@db/app", "db:5432"),
        ("postgresql://u:a@b:c/d?e#f@db:5433/app", "db:5433"),
        ("postgresql://127.0.0.1?user=me@srv&password=hunter2", "127.0.0.1:5432"),
        ("postgresql://h1:1,[::1]:2,h3/app", "h1:1,[::1]:2,h3:5432"),
        ("host=a,b port=6000", "a:6000,b:6000"),
        ("host=a,b hostaddr=10.0.0.1,10.0.0.2", "a:5432,b:5432"),
        ("hostaddr=10.0.0.1", "10.0.0.1:5432"),
        ("postgresql+psycopg2://me:x@/app?host=a:5433&host=b", "a:5433,b:5432"),
        ("postgresql+asyncpg://me:x@/app?host=/run/pg&host=b:1", "/run/pg/.s.PGSQL.5432,b:1"),
        ("postgresql+psycopg://me@/app?host=a&port=6", "a:6"),
        ("postgresql:///app?host=/cloudsql/p:r:i", "/cloudsql/p:r:i/.s.PGSQL.5432"),
        (
            "host=/cloudsql/p:r:a,/cloudsql/p:r:b",
            "/cloudsql/p:r:a/.s.PGSQL.5432,/cloudsql/p:r:b/.s.PGSQL.5432",
        ),
        ("host=/run/a,/run/b", "/run/a/.s.PGSQL.5432,/run/b/.s.PGSQL.5432"),
        ("user=me", "localhost:5432"),
    ],
)
def test_the_address_names_each_host(dsn: str, address: str) -> None:
    """As it is in a label: configured, and without credentials."""
    assert read(dsn).address == address


def test_neon_prisma_and_others_are_accepted_with_a_warning_for_each_parameter_without_effect() -> None:
    """What providers and ORMs put into a DATABASE_URL."""
    it = read(
        "postgresql://me:s3cret@ep-1.neon.tech/app?sslmode=require&channel_binding=require&application_name=x"
    )
    assert it.sslmode == "require"
    assert [note.split(" is ")[0] for note in it.warnings] == [
        "dsn: channel_binding",
        "dsn: application_name",
    ]
    it = read("postgresql://me@db/app?pgbouncer=true&connection_limit=1&schema=public&pool_timeout=0")
    assert len(it.warnings) == 4
    assert any("`pooler: true`" in note for note in it.warnings)
    assert not read("postgresql://me@db/app?sslmode=require").warnings


def test_ssl_is_another_name_of_sslmode_in_a_url() -> None:
    """SQLAlchemy with asyncpg writes `ssl=require`, node-postgres `ssl=1`."""
    for value, mode in (
        ("require", "require"),
        ("1", "require"),
        ("false", "disable"),
        ("verify-full", "verify-full"),
    ):
        assert read(f"postgresql+asyncpg://me@db/app?ssl={value}").sslmode == mode


@pytest.mark.parametrize("name", ["sslmode", "ssl"])
def test_no_verify_of_node_postgres_asks_for_tls_and_accepts_any_certificate(name: str) -> None:
    """Heroku's guides write it; a certificate to trust would be verified with `require`."""
    for more in ("", "&sslrootcert=ca.pem"):
        it = read(f"postgresql://me@db/app?{name}=no-verify{more}")
        assert (it.sslmode, it.tls.ca_file) == ("require", None)
    it = read(
        f"postgresql://me@db/app?{name}=no-verify&query_timeout=5000&keepAlive=true&extra_float_digits=3"
    )
    assert len(it.warnings) == 3


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_every_sslmode_is_accepted_with_a_root_certificate(mode: str) -> None:
    """As in libpq, which ignores the file with disable."""
    it = read(f"host=db sslmode={mode} sslrootcert=ca.pem")
    assert it.sslmode == mode
    assert (it.tls.ca_file is None) == (mode == "disable")
    assert bool(it.warnings) == (mode in ("disable", "allow", "prefer"))


def test_a_root_certificate_alone_leaves_the_mode_of_libpq_and_system_implies_verify_full() -> None:
    """The default is prefer; `sslrootcert=system` needs verify-full, which it implies."""
    assert read("host=db sslrootcert=ca.pem").sslmode == "prefer"
    it = read("host=db sslrootcert=system")
    assert (it.sslmode, it.tls.ca_file) == ("verify-full", None)
    assert read("host=db sslrootcert=system", ", sslmode: verify-full").sslmode == "verify-full"
    assert read("host=db", ", tls: {ca_file: ca.pem}").sslmode == "verify-full"
    it = read("host=db sslcert=a.pem sslkey=a.key", ", tls: {ca_file: ca.pem}")
    assert (it.sslmode, str(it.tls.cert_file), str(it.tls.ca_file)) == ("verify-full", "a.pem", "ca.pem")


def test_the_options_of_tls_are_those_of_the_config() -> None:
    """A key without a certificate is ignored, as in libpq, which looks for a certificate in its own files."""
    tls = read("host=db sslcert=a.pem sslkey=a.key sslpassword=s3cret ssl_min_protocol_version=TLSv1.3").tls
    assert tls.key_password is not None
    assert tls.key_password.get_secret_value() == "s3cret"
    assert (str(tls.key_file), tls.min_version) == ("a.key", "1.3")
    assert (
        read("host=db ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.2").tls.min_version
        == "1.0"
    )
    it = read("host=db sslkey=a.key sslpassword=x")
    assert it.tls.key_file is None
    assert len(it.warnings) == 2


def test_hosts_can_be_a_list_in_the_config() -> None:
    """With ports of their own, or that of `port`."""
    config = load_text(
        "services: {it: {kind: postgresql, port: 6000, hosts: [a, 'b:1', '[::1]', /run/pg]}}"
    ).services
    it = config["it"]
    assert isinstance(it, PostgresqlConfig)
    assert it.address == "a:6000,b:1,[::1]:6000,/run/pg/.s.PGSQL.6000"
    assert it.host == "a"


@pytest.mark.parametrize("name", ["service", "sslcrl", "sslcrldir", "requirepeer", "scram_client_key"])
def test_a_parameter_that_would_change_the_meaning_is_an_error_that_says_what_to_do(name: str) -> None:
    """Never its value."""
    with pytest.raises(ConfigError) as refused:
        read(f"host=db {name}=s3cret")
    assert "s3cret" not in str(refused.value)
    assert " write " in str(refused.value) or " remove " in str(refused.value)
