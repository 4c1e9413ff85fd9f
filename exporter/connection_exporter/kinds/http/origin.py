"""Owns where the requests of one check go: a scheme, a host and a port."""

from dataclasses import dataclass, field

from connection_exporter.net.names import host_and_port, to_ascii


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go, and whether over TLS (RFC 9110, section 4.3.1).

    ``host`` becomes its ASCII form; ``written`` is what was given. Raises ValueError if it is not a host.
    """

    tls: bool
    host: str
    port: int
    written: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "written", self.host)
        object.__setattr__(self, "host", to_ascii(self.host))

    @property
    def name(self) -> str:
        """The host name; ``localhost`` for a Unix socket."""
        return "localhost" if self.host.startswith("/") else self.host

    @property
    def address(self) -> str:
        """``host:port`` for messages, or the path of a Unix socket."""
        return self.host if self.host.startswith("/") else host_and_port(self.written, self.port)
