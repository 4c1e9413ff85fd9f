"""Owns the config of kind redis. Must not import the driver."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from exporter.config.service import Login, Port, ServiceConfig, Strict, TlsConfig, host_and_port, split_url


class RedisExpect(Strict):
    """What has to be true beyond an answer to PING."""

    role: Literal["master", "replica"] | None = Field(None, description="what the server has to be")
    master_link_up: Literal[True] | None = Field(
        None, description="a replica must be in touch with its master"
    )


class RedisConfig(ServiceConfig, Login):
    """A Redis or Valkey server, held by one connection."""

    kind: Literal["redis"]
    url: str | None = Field(
        None, description="redis://user:password@host:port/database, rediss:// for TLS, or unix:///path"
    )
    host: str = Field("localhost", min_length=1, description="host name, address or path of the Unix socket")
    port: Port = Field(6379, description="port")
    database: int = Field(0, ge=0, description="number of the database")
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by rediss://")
    expect: RedisExpect = Field(RedisExpect(), description="what has to be true of the server")
    depth: bool = Field(True, description="also ask for role, memory, clients, persistence (INFO)")

    @model_validator(mode="before")
    @classmethod
    def _take_url_apart(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(url := given.get("url"), str):
            return given
        parts = _unix_parts(url) if url.startswith("unix://") else _tcp_parts(url)
        if parts.pop("scheme") == "rediss" and given.get("tls") is None:
            parts["tls"] = {}
        if both := [key for key in parts if key in given and key != "tls"]:
            raise ValueError(f"url and {both[0]} both say {both[0]}: keep one")
        return {**given, **parts, "url": None}

    @model_validator(mode="after")
    def _expect_needs_depth(self) -> Self:
        wanted = [key for key in ("role", "master_link_up") if getattr(self.expect, key) is not None]
        if wanted and not self.depth:
            raise ValueError(f"expect.{wanted[0]} needs INFO: it does not go with depth: false")
        return self

    @property
    def address(self) -> str:
        """The configured host:port, or the path of the Unix socket."""
        return self.host if self.host.startswith("/") else host_and_port(self.host, self.port)


def _unix_parts(url: str) -> dict[str, object]:
    path = url.removeprefix("unix://")
    if not path.startswith("/") or "?" in path:
        raise ValueError("url: a Unix socket is written unix:///path; use the config's keys for the rest")
    return {"scheme": "unix", "host": path}


def _tcp_parts(url: str) -> dict[str, object]:
    parts = split_url(url, ("redis", "rediss"), key="url")
    if parts.pop("query"):
        raise ValueError("url: parameters are not supported: use the config's keys")
    path = str(parts.pop("path"))
    if path and not (path.isascii() and path.isdigit() and len(path) < 10):
        raise ValueError("url: the path is the number of the database, as in /0")
    if path:
        parts["database"] = int(path)
    return parts
