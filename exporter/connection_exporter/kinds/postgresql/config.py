"""The config of kind postgresql. Must not import the driver."""

import os
import pwd
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from connection_exporter.config.secret import SecretFile
from connection_exporter.config.service import Host, Login, Port, ServiceConfig
from connection_exporter.config.strict import Strict
from connection_exporter.config.tls import TlsConfig
from connection_exporter.kinds.postgresql.dsn import parse_dsn
from connection_exporter.kinds.postgresql.methods import parse_methods
from connection_exporter.kinds.postgresql.parameters import OTHER_NAMES, ignored, with_keys_of
from connection_exporter.kinds.postgresql.passfile import password_in
from connection_exporter.kinds.postgresql.targets import MOST, PORT, Target, parse_place, targets_of
from connection_exporter.net.names import is_ip

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
Attributes = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]
"""What a server must be, https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS."""


def _one_host(host: object) -> object:
    if isinstance(host, list) or (isinstance(host, str) and "," in host):
        raise ValueError("write several hosts as a list: `hosts: [db1, db2]`")
    return host


def _hosts(hosts: list[str]) -> list[str]:
    if not 1 <= len(hosts) <= MOST:
        raise ValueError(f"expected 1 to {MOST} hosts, as in [db1, db2:5433]")
    return hosts


def _place(text: str) -> str:
    parse_place(text)
    return text


def _addresses(text: str) -> str:
    if all(is_ip(part.strip()) for part in text.split(",") if part):
        return text
    raise ValueError("expected an IP address, or one for each host, separated by commas")


def _methods(text: str) -> str:
    parse_methods(text)
    return text


class PostgresqlExpect(Strict):
    """What must be true in addition to an answer to the query."""

    role: Literal["primary", "standby"] | None = Field(None, description="role that the server must have")
    value: bool | int | float | str | None = Field(
        None, description="what the first column of the first row must be, compared as text"
    )


def _tls_is_used(config: "PostgresqlConfig") -> str | None:
    if not config.is_written("tls"):
        return None
    if config.sslmode == "disable":
        return "sslmode disable does not use tls: write sslmode: verify-full, or remove tls"
    if not config.tls.verify and config.sslmode.startswith("verify"):
        return f"tls.verify: false contradicts sslmode {config.sslmode}: write sslmode: require"
    return None


def _has_no_nul(config: "PostgresqlConfig") -> str | None:
    for key in ("user", "database", "query"):
        if "\0" in (getattr(config, key) or ""):
            return f"{key}: contains a NUL, which PostgreSQL does not allow: remove it"
    return None


def _hosts_are_one_list(config: "PostgresqlConfig") -> str | None:
    if config.hosts is None:
        return None
    if config.is_written("host"):
        return "host and hosts are both given: keep one"
    if config.hostaddr is not None and config.hostaddr.count(",") + 1 != len(config.hosts):
        return f"hostaddr: {len(config.hosts)} hosts are given: give an address for each, or remove hostaddr"
    return None


def _role_needs_depth(config: "PostgresqlConfig") -> str | None:
    if config.expect.role and (config.pooler or not config.depth):
        return "expect.role needs depth, which pooler: true and depth: false turn off: remove one of them"
    return None


class PostgresqlConfig(ServiceConfig, Login):
    """A PostgreSQL server, held by one connection."""

    RULES = (_tls_is_used, _has_no_nul, _hosts_are_one_list, _role_needs_depth)

    OTHER_NAMES = OTHER_NAMES

    kind: Literal["postgresql"]
    dsn: str | None = Field(None, description="URL or key=value pairs, as for psql")
    host: Annotated[Host, BeforeValidator(_one_host)] = Field(
        "localhost", description="host, or directory of the Unix socket"
    )
    port: Port = Field(PORT, description="port; also for each of `hosts` without a port")
    hosts: Annotated[list[Annotated[str, AfterValidator(_place)]], AfterValidator(_hosts)] | None = Field(
        None, description="several hosts instead of `host`, as in [db1, db2:5433], tried in this order"
    )
    hostaddr: Annotated[str, AfterValidator(_addresses)] | None = Field(
        None,
        description="IP address to connect to, so that the name is not resolved; with `hosts`, one for each",
    )
    target_session_attrs: Attributes = Field(
        "any", description="what the server must be, as in libpq; the first suitable host is used"
    )
    database: str | None = Field(None, description="database; by default, the one with the name of the user")
    passfile: SecretFile | None = Field(
        None, description="a file in the format of .pgpass, to look up the password if none is given"
    )
    require_auth: Annotated[str, AfterValidator(_methods)] | None = Field(
        None, description="authentication methods to accept, as in libpq: scram-sha-256, or !password"
    )
    sslmode: SslMode = Field("prefer", description="as in libpq")
    tls: TlsConfig = Field(
        TlsConfig(),
        description="TLS settings; with them, sslmode is by default verify-full, or require with `verify: false`",
    )
    query: str = Field("SELECT 1", min_length=1, description="what a probe executes")
    expect: PostgresqlExpect = Field(PostgresqlExpect(), description="conditions for a good answer")
    depth: bool = Field(True, description="also ask for role, lag and connection slots at each probe")
    pooler: bool = Field(
        False, description="the server is behind PgBouncer in transaction mode: turns `depth` off"
    )

    def adjust_defaults(self) -> None:
        """Let a written `tls` turn TLS on."""
        super().adjust_defaults()
        if self.is_written("tls") and not self.is_written("sslmode"):
            self.set_default("sslmode", "verify-full" if self.tls.verify else "require")

        if self.hosts is not None and not self.is_written("host"):
            self.set_default("host", parse_place(self.hosts[0])[0])

    @classmethod
    def parse_given(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Replace the DSN by its parts. Raises ValueError."""
        if not isinstance(dsn := given.get("dsn"), str):
            return given
        return with_keys_of(parse_dsn(dsn), given)

    @classmethod
    def warn_about(cls, given: dict[str, Any]) -> Iterator[str]:
        """Yield a warning for each parameter of the DSN that is ignored."""
        if isinstance(dsn := given.get("dsn"), str):
            yield from ignored(parse_dsn(dsn), given)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What `warn_about` has found, and a certificate that protects nothing."""
        if self.sslmode in ("allow", "prefer") and self.tls.ca_file is not None:
            text = (
                f"sslmode {self.sslmode} also accepts a server without TLS: write verify-full to be protected"
            )
            return (*super().warnings, text)
        return super().warnings

    @property
    def login_user(self) -> str:
        """The user to log in as: as in libpq, the name of the account that the exporter runs under if none is given."""
        return self.user or _account()

    @property
    def login_database(self) -> str:
        """The database to log in to: as in libpq, the one with the user's name if none is given."""
        return self.database or self.login_user

    @property
    def targets(self) -> tuple[Target, ...]:
        """The hosts, in the order in which they are tried."""
        if self.hosts is None:
            return (Target(self.host, self.port, self.hostaddr),)
        return targets_of(self.hosts, self.port, self.hostaddr)

    @property
    def address(self) -> str:
        """The configured host:port, or the path of the Unix socket; of several hosts, with commas between them."""
        return ",".join(target.name for target in self.targets)

    async def read_password_for(self, target: Target) -> str | None:
        """Return the current password for a host. Raises `Failure` (auth) when its file cannot be read."""
        if self.passfile is None or self.password is not None or self.password_file is not None:
            return await self.read_password()
        rest = (str(target.port), self.login_database, self.login_user)

        def select(text: str) -> str:
            found = password_in(text, (target.host, *rest))
            return found or (password_in(text, ("localhost", *rest)) if target.is_socket else "")

        return await self.passfile.read("passfile", select=select) or None


def _account() -> str:
    """Return the name of the account that this process runs under, as the system knows it.

    A container may run under a number that has no name; the environment is the next best source then.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or os.environ.get("LOGNAME") or "postgres"
