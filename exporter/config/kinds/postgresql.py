"""Owns the config of kind postgresql. Must not import the driver."""

import os
from typing import Any, Literal, Self
from urllib.parse import unquote

from pydantic import Field, model_validator

from exporter.config.service import (
    Login,
    Port,
    ServiceConfig,
    Strict,
    TlsConfig,
    host_and_port,
    parse_port,
    split_url,
)

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]

_SCHEMES = ("postgresql", "postgres")


class PostgresqlExpect(Strict):
    """What has to be true beyond an answer to the query."""

    role: Literal["primary", "standby"] | None = Field(None, description="what the server has to be")
    value: bool | int | float | str | None = Field(
        None, description="what the first column of the first row has to be, compared as text"
    )


class PostgresqlConfig(ServiceConfig, Login):
    """A PostgreSQL server, held by one connection."""

    kind: Literal["postgresql"]
    dsn: str | None = Field(None, description="postgresql://user:password@host:port/database?sslmode=…")
    host: str = Field("localhost", min_length=1, description="host, or directory of the Unix socket")
    port: Port = Field(5432, description="port")
    database: str | None = Field(None, description="database; the user's name if absent")
    sslmode: SslMode = Field("prefer", description="as in libpq")
    tls: TlsConfig = Field(
        TlsConfig(), description="TLS files; with them sslmode is verify-full unless written"
    )
    query: str = Field("SELECT 1", min_length=1, description="what a probe executes")
    expect: PostgresqlExpect = Field(PostgresqlExpect(), description="what has to be true of the answer")
    depth: bool = Field(True, description="also ask for role, lag and connection slots at each probe")
    pooler: bool = Field(False, description="behind PgBouncer in transaction mode: depth is off")

    @model_validator(mode="before")
    @classmethod
    def _tls_asks_for_tls(cls, given: Any) -> Any:
        """Run after the DSN is taken apart: pydantic runs these from the last to the first."""
        if not isinstance(given, dict) or not isinstance(tls := given.get("tls"), dict) or "sslmode" in given:
            return given
        return {**given, "sslmode": "require" if tls.get("verify") is False else "verify-full"}

    @model_validator(mode="before")
    @classmethod
    def _take_dsn_apart(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(dsn := given.get("dsn"), str):
            return given
        scheme, separator, rest = dsn.partition("://")
        scheme = scheme.split("+", 1)[0]  # as SQLAlchemy writes it: postgresql+asyncpg://
        parts = split_url(scheme + separator + rest, _SCHEMES, key="dsn")
        query = parts.pop("query")
        assert isinstance(query, dict)
        path = parts.pop("path")
        del parts["scheme"]
        if path:
            parts["database"] = unquote(str(path))
        for key in ("host", "user", "password", "sslmode"):
            if key in query:
                parts[key] = query[key]
        if "port" in query:
            parts["port"] = parse_port(query["port"], key="dsn")
        unknown = query.keys() - {"host", "port", "user", "password", "sslmode"}
        if unknown:
            raise ValueError(f"dsn: the parameter {min(unknown)!r} is not supported: use a key of the config")
        if both := [key for key in parts if key in given]:
            raise ValueError(f"dsn and {both[0]} both say {both[0]}: keep one")
        return {**given, **parts, "dsn": None}

    @model_validator(mode="after")
    def _tls_is_used(self) -> Self:
        if "tls" not in self.model_fields_set:
            return self
        if self.sslmode in ("disable", "prefer"):
            raise ValueError(
                f"sslmode {self.sslmode} makes no use of tls: write sslmode: verify-full, or remove tls"
            )
        if not self.tls.verify and self.sslmode != "require":
            raise ValueError(f"tls.verify: false contradicts sslmode {self.sslmode}: write sslmode: require")
        return self

    @model_validator(mode="after")
    def _role_needs_depth(self) -> Self:
        if self.expect.role and (self.pooler or not self.depth):
            raise ValueError("expect.role needs depth: it does not go with pooler: true or depth: false")
        return self

    @property
    def login_user(self) -> str:
        """The user to log in as: as in libpq, the name of the account we run under if none is given."""
        return self.user or os.environ.get("USER") or os.environ.get("LOGNAME") or "postgres"

    @property
    def address(self) -> str:
        """The configured host:port, or the path of the Unix socket."""
        return self.socket_path or host_and_port(self.host, self.port)

    @property
    def socket_path(self) -> str | None:
        """The Unix socket in the directory ``host``, if that is what ``host`` is."""
        return f"{self.host}/.s.PGSQL.{self.port}" if self.host.startswith("/") else None
