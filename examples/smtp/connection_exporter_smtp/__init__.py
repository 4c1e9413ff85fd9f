"""Kind smtp: its config model, and where its check is. Does not import the check, which is loaded when it is needed."""

from typing import Literal

from connection_exporter.config.service import Host, Port, ServiceConfig
from connection_exporter.kinds import Kind
from connection_exporter.net.names import host_and_port
from pydantic import Field


class SmtpConfig(ServiceConfig):
    """A mail server."""

    kind: Literal["smtp"]
    host: Host = Field(description="host name or address")
    port: Port = Field(25, description="port")

    @property
    def where(self) -> str:
        """The configured host:port."""
        return host_and_port(self.host, self.port)


KIND = Kind(config=SmtpConfig, check="connection_exporter_smtp.check:SmtpCheck")
