"""Owns the config of kind process."""

from typing import Literal, Self

from pydantic import Field, model_validator

from exporter.config.patterns import Pattern
from exporter.config.service import CanaryPeriod, Duration, FilePath, ServiceConfig, Strict


class Heartbeat(Strict):
    """A file that the process touches while it does its work."""

    file: FilePath = Field(description="file that the process touches while it works")
    max_age: Duration = Field(gt=0, description="an older file means that the process hangs")


class ProcessConfig(ServiceConfig):
    """A process on this machine, found by exactly one of pidfile, name, cmdline and unit."""

    kind: Literal["process"]
    canary: CanaryPeriod = Field(None, description="none: a process has no connection to try")
    pidfile: FilePath | None = Field(None, description="file that holds the process id")
    name: str | None = Field(
        None, min_length=1, description="name of the executable, as `ps -o comm` shows it"
    )
    cmdline: Pattern | None = Field(
        None, min_length=1, description="regular expression (RE2) found in the command line"
    )
    unit: str | None = Field(None, min_length=1, description="systemd unit")
    heartbeat: Heartbeat | None = Field(None, description="file that shows that the process is not hung")

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> Self:
        ways = [way for way in ("pidfile", "name", "cmdline", "unit") if getattr(self, way) is not None]
        if len(ways) != 1:
            told = " and ".join(ways) + " are given" if ways else "none is given"
            raise ValueError(f"a process is found by exactly one of pidfile, name, cmdline and unit: {told}")
        if self.canary is not None:
            raise ValueError("a process has no canary: remove it")
        return self

    @property
    def address(self) -> str:
        """What the process is found by: the pidfile, name, pattern or unit as configured."""
        return str(self.pidfile or self.name or self.cmdline or self.unit)
