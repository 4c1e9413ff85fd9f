"""Knows the parameters that a DSN may have: which of our keys each one is, which are ignored, which are not supported.

libpq's: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS. The others are what drivers,
ORMs and hosting providers put into a ``DATABASE_URL``. An unknown parameter is an error, as in libpq: it may be a
misspelled one, or a piece of a password, so it is never named.
"""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

from connection_exporter.config.explain import nearest
from connection_exporter.config.strict import UnreadableParts
from connection_exporter.config.url import parse_host, parse_port
from connection_exporter.kinds.postgresql.targets import MOST
from connection_exporter.net.names import host_and_port, is_ip

_KEYS: Final[Mapping[str, str]] = {
    "user": "user",
    "password": "password",
    "dbname": "database",
    "database": "database",  # SQLAlchemy, asyncpg
    "sslmode": "sslmode",
    "target_session_attrs": "target_session_attrs",
    "passfile": "passfile",
    "require_auth": "require_auth",
}
_TLS_KEYS: Final[Mapping[str, str]] = {
    "sslrootcert": "ca_file",
    "sslcert": "cert_file",
    "sslkey": "key_file",
    "sslpassword": "key_password",
    "ssl_min_protocol_version": "min_version",
    "ssl_max_protocol_version": "max_version",
}

OTHER_NAMES: Final[Mapping[str, str]] = {
    "url": "dsn",
    "uri": "dsn",
    "dbname": "database",
    "username": "user",
    **{name: f"tls: {{{key}: …}}" for name, key in _TLS_KEYS.items()},
}
"""What psql and other tools call a key of ours, where it is written as a key and not in a DSN."""

_IGNORED_BECAUSE: Final[Mapping[str, str]] = {
    "the session is named connection-exporter": "application_name fallback_application_name ApplicationName",
    "channel binding is not supported; sslmode verify-full protects the password": "channel_binding",
    "the encoding is UTF-8": "client_encoding encoding charset",
    "`timeout` is the deadline of an attempt, with all hosts": """
        connect_timeout connectTimeout loginTimeout socketTimeout socket_timeout timeout command_timeout
        statement_timeout query_timeout connection_timeout lock_timeout idle_in_transaction_session_timeout""",
    "GSSAPI is not supported": "gssencmode gssdelegation gsslib krbsrvname",
    "hosts are tried in the order in which they are written": "load_balance_hosts",
    "the protocol's version is 3.0, which every server supports": "min_protocol_version max_protocol_version",
    "settings of the session: write them into `query`, or ALTER ROLE … SET": "options server_settings",
    "write the schema before the names in `query`": "schema currentSchema search_path",
    "a client certificate is sent if one is configured": "sslcertmode",
    "TLS is not compressed": "sslcompression",
    "the keys of TLS are not logged": "sslkeylogfile",
    "TLS is asked for by an SSLRequest, which every server understands": "sslnegotiation",
    "the host's name is always sent (SNI)": "sslsni",
    "a vanished server is noticed within 11 s": """
        keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout tcpKeepAlive keepAlive
        keepAliveInitialDelayMillis""",
    "write `pooler: true` if PgBouncer is in transaction mode": "pgbouncer",
    "the exporter holds one connection, without a pool": """
        connection_limit pool pool_timeout pool_size pool_mode pool_recycle pool_pre_ping max_overflow pool_max_conns
        pool_min_conns pool_max_conn_lifetime pool_max_conn_idle_time pool_health_check_period min_size max_size
        max_queries max_inactive_connection_lifetime conn_max_age conn_health_checks reaping_frequency checkout_timeout
        idle_timeout""",
    "no statement is kept that a pooler could lose": """
        statement_cache_size statement_cache_capacity statement_cache_mode description_cache_capacity
        default_query_exec_mode prepared_statement_cache_size prepared_statement_name_func prepared_statements
        max_cached_statement_lifetime max_cacheable_statement_size binary_parameters prepareThreshold prepare_threshold
        preparedStatementCacheQueries preferQueryMode""",
    "not needed to monitor the server": """
        async_fallback autosave adapter reconnect variables timezone TimeZone datestyle DateStyle extra_float_digits
        supa workaround serverVersion stringtype loggerLevel defaultRowFetchSize reWriteBatchedInserts min_messages
        advisory_locks insert_returning uselibpqcompat sslaccept jit""",
}
"""Parameters without effect: libpq's, and those of Prisma, SQLAlchemy, asyncpg, pgx, JDBC, Rails, Django, Supabase, and
node-postgres."""

_IGNORED: Final = {name: why for why, names in _IGNORED_BECAUSE.items() for name in names.split()}

_HARMLESS: Final[Mapping[str, tuple[str, ...]]] = {
    "gssencmode": ("disable", "prefer"),
    "replication": ("false", "off", "no", "0"),
}
"""Values that change nothing, of parameters that are not supported."""

_INSTEAD: Final[Mapping[str, str]] = {
    "gssencmode": "GSSAPI is not supported: write gssencmode=disable, and sslmode=require to encrypt",
    "replication": "a query needs a normal session: remove replication",
    "requirepeer": "the account of the server is not checked: remove requirepeer",
    "scram_client_key": "keys of SCRAM are not supported: write password or password_file",
    "scram_server_key": "keys of SCRAM are not supported: remove scram_server_key",
    "service": "service files are not read: write the parameters of that service here",
    "servicefile": "service files are not read: write the parameters of that service here",
    "sslcrl": "revoked certificates are not recognized: remove sslcrl",
    "sslcrldir": "revoked certificates are not recognized: remove sslcrldir",
}
"""Parameters that are not supported, and what to do instead."""

_OF_HOSTS: Final = ("host", "hosts", "hostaddr", "port")
"""Our keys without a value if the hosts of a DSN cannot be read."""

_KNOWN: Final = ("host", "hostaddr", "port", *_KEYS, *_TLS_KEYS, *_INSTEAD)


def with_keys_of(parameters: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of our config, ``given``, and those that mean the same as ``parameters``, without ``dsn``.

    Raises `UnreadableParts` with every problem.
    """
    problems = list(_refused(parameters))
    parameters = _as_libpq(parameters)
    keys: dict[str, Any] = {_KEYS[name]: value for name, value in parameters.items() if name in _KEYS}
    unknown: tuple[str, ...] = ()
    try:
        keys |= _hosts_of(parameters)
    except ValueError as error:
        problems.append(str(error))
        unknown = _OF_HOSTS
    for key, other in _given_twice(keys, given):
        problems.append(f"dsn and {other} both set {other}: keep one")
        keys.pop(key, None)
    mode = keys.get("sslmode", given.get("sslmode"))
    tls = _tls_of(parameters, given)
    if tls.get("ca_file") == "system":
        del tls["ca_file"]  # what the system trusts is our default
        mode = keys["sslmode"] = mode or "verify-full"
        if mode != "verify-full":
            problems.append(
                "dsn: sslrootcert=system needs sslmode=verify-full: write it, or remove sslrootcert"
            )
    if tls and mode != "disable":
        if "tls" not in given:
            keys["sslmode"] = mode or "prefer"  # libpq's default, whatever files are given
        beside = given.get("tls") or {}
        if isinstance(beside, dict):
            problems += (f"dsn and tls.{key} both set {key}: keep one" for key in tls if key in beside)
            keys["tls"] = {**tls, **beside}
    read = {**given, **keys, "dsn": None}
    if problems:
        raise UnreadableParts(problems, given=read, unknown=unknown)
    return read


def ignored(parameters: Mapping[str, str], given: Mapping[str, Any]) -> Iterator[str]:
    """Yield a text for each of the ``parameters`` that has no effect, next to the keys that are ``given``."""
    for name in parameters:
        if name in _IGNORED:
            yield f"dsn: {name} is ignored: {_IGNORED[name]}"
        elif name in _TLS_KEYS and "disable" in (parameters.get("sslmode"), given.get("sslmode")):
            yield f"dsn: {name} is ignored: sslmode is disable"
        elif name in ("sslkey", "sslpassword") and _lacks_certificate(parameters, given):
            yield f"dsn: {name} is ignored: there is no sslcert"
    if not {"host", "hosts", "hostaddr"} & {*parameters, *given}:
        yield "dsn: without a host, localhost is used; psql uses a Unix socket, as with host=/var/run/postgresql"


def _refused(parameters: Mapping[str, str]) -> Iterator[str]:
    """Yield a text for each parameter that is unknown, or cannot take effect."""
    for name, value in parameters.items():
        if name in _INSTEAD and value not in _HARMLESS.get(name, ()):
            yield f"dsn: {_INSTEAD[name]}"
        if name not in _KNOWN and name not in _IGNORED:
            near = nearest(name, _KNOWN, similarity=0.75)
            hint = (
                f"did you mean {near!r}?"
                if near
                else "remove it, or write the password in the key `password`"
            )
            yield f"dsn: unknown parameter: {hint}"


def _given_twice(keys: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each of ``keys`` that contradicts one that is ``given``, with that one."""
    hosts = ("host", "hosts")
    return [(key, other) for key in keys for other in (hosts if key in hosts else (key,)) if other in given]


def _tls_of(parameters: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, str]:
    """Return what the parameters say of TLS, under our keys."""
    tls = {_TLS_KEYS[name]: value for name, value in parameters.items() if name in _TLS_KEYS}
    if _lacks_certificate(parameters, given):
        tls = {key: value for key, value in tls.items() if key not in ("key_file", "key_password")}
    if tls.get("min_version") == "TLSv1":  # as PostgreSQL calls TLS 1.0
        tls["min_version"] = "1.0"
    return tls


def _as_libpq(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Write ``sslmode=no-verify`` of node-postgres as libpq does: TLS, and no certificate to trust."""
    if parameters.get("sslmode") != "no-verify":
        return parameters
    without = {name: value for name, value in parameters.items() if name != "sslrootcert"}
    return {**without, "sslmode": "require"}


def _lacks_certificate(parameters: Mapping[str, str], given: Mapping[str, Any]) -> bool:
    tls = given.get("tls")
    return "sslcert" not in parameters and not (isinstance(tls, dict) and "cert_file" in tls)


def _hosts_of(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return ``host`` and ``port`` for one host, ``hosts`` for several, and their ``hostaddr``."""
    addresses, names, ports = (_list(parameters.get(name)) for name in ("hostaddr", "host", "port"))
    if addresses and names and len(addresses) != len(names):
        raise ValueError("dsn: hostaddr and host differ in number: give an address for each host")
    if not all(is_ip(address) for address in addresses if address):
        raise ValueError("dsn: hostaddr is not an IP address: write the name as host")
    count = max(len(addresses), len(names), 1)
    if count > MOST:
        raise ValueError(f"dsn: there are more than {MOST} hosts")
    if len(ports) not in (0, 1, count):
        raise ValueError("dsn: port and host differ in number: give one port for all hosts, or one for each")
    hosts = [name or address for name, address in zip_longest(names or addresses, addresses)]
    numbers = [parse_port(port, key="dsn") if port else None for port in ports]
    try:
        hosts = [parse_host(host) if host else None for host in hosts]
    except ValueError as error:
        raise ValueError(f"dsn: a host is {error}") from None
    keys: dict[str, Any] = {"hostaddr": parameters["hostaddr"]} if addresses and names else {}
    if count == 1:
        return keys | {
            key: value[0] for key, value in (("host", hosts), ("port", numbers)) if value and value[0]
        }
    each = numbers * count if len(numbers) == 1 else numbers or [None] * count
    return keys | {
        "hosts": [host_and_port(host or "localhost", port) for host, port in zip(hosts, each, strict=True)]
    }


def _list(value: str | None) -> list[str]:
    return [part.strip() for part in value.split(",")] if value else []
