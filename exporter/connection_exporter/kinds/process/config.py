"""The config of kind process."""

from typing import Literal

from pydantic import Field

from connection_exporter.config.patterns import Pattern
from connection_exporter.config.secret import FilePath
from connection_exporter.config.service import CanaryPeriod, Duration, ServiceConfig, no_canary
from connection_exporter.config.strict import Strict


class Heartbeat(Strict):
    """A file that the process touches while it does its work."""

    SHAPE = "{file: VALUE, max_age: 30s}"

    file: FilePath = Field(description="file that the process touches while it works")
    max_age: Duration = Field(gt=0, description="an older file means that the process hangs")


def _one_way_to_find_it(config: "ProcessConfig") -> str | None:
    ways = [way for way in ("pidfile", "name", "cmdline", "unit") if getattr(config, way) is not None]
    if len(ways) == 1:
        return None
    given = " and ".join(ways) + " are given" if ways else "none is given"
    return f"a process is found by exactly one of pidfile, name, cmdline and unit: {given}"


class ProcessConfig(ServiceConfig):
    """A process on this machine, found by exactly one of pidfile, name, cmdline and unit."""

    RULES = (_one_way_to_find_it, no_canary)
    CONNECTS = False

    kind: Literal["process"]
    canary: CanaryPeriod = Field(None, description="none: a process has no connection to try")
    pidfile: FilePath | None = Field(None, description="file that contains the process ID")
    name: str | None = Field(
        None, min_length=1, description="name of the executable, as `ps -o comm` shows it"
    )
    cmdline: Pattern | None = Field(
        None, min_length=1, description="regular expression (RE2) found in the command line"
    )
    unit: str | None = Field(None, min_length=1, description="systemd unit")
    heartbeat: Heartbeat | None = Field(
        None, description="file whose age shows that the process does not hang"
    )

    @property
    def address(self) -> str:
        """What the process is found by: the configured pidfile, name, pattern or unit."""
        return str(self.pidfile or self.name or self.cmdline or self.unit)
