"""The config of kind heartbeat."""

from typing import Literal

from pydantic import Field, SecretStr

from connection_exporter.config.secret import SecretFile
from connection_exporter.config.service import CanaryPeriod, Duration, ServiceConfig, no_canary
from connection_exporter.config.strict import at_most_one
from connection_exporter.core.retry import Fault


class HeartbeatConfig(ServiceConfig):
    """A service that reports to the exporter by `POST /heartbeat/{name}`."""

    RULES = (at_most_one("token", "token_file"), no_canary)
    CONNECTS = False

    kind: Literal["heartbeat"]
    canary: CanaryPeriod = Field(None, description="none: a heartbeat has no connection to try")
    retries: int = Field(
        1,
        ge=1,
        description="failed attempts in a row until `disconnected`; 1, because `max_age` already is the tolerance",
    )
    max_age: Duration = Field(
        gt=0,
        description="longest time from one beat to the next, and from the start of monitoring to the first beat",
    )
    token: SecretStr | None = Field(
        None, min_length=1, description="bearer token that each beat must carry; better in `token_file`"
    )
    token_file: SecretFile | None = Field(
        None, description="file that contains the token; read again at each beat"
    )

    @property
    def where(self) -> str:
        """A dash: the service has no address that we know."""
        return "-"

    @property
    def detection_bounds(self) -> dict[Fault, float]:
        """`max_age` for each fault: silence is all there is to notice, whatever its cause."""
        return dict.fromkeys(Fault, self.max_age)

    def adjust_defaults(self) -> None:
        """Let a short `max_age` lower `retry_delay`: only a session that lasted longer is looked at again at once."""
        if not self.is_written("retry_delay"):
            self.set_default("retry_delay", min(self.retry_delay, self.max_age / 2))
        super().adjust_defaults()
