"""Owns the metrics of the exporter's own process, with the names and texts of the reference library.

Its `ProcessCollector` lists all file descriptors, which takes 0.6 ms if there are 1,200, and reads three files.
"""

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prometheus_client import Metric
from prometheus_client.process_collector import ProcessCollector

_PAGE: Final = resource.getpagesize()
_MEMORY: Final = Path("/proc/self/statm")
_FILES: Final = "/proc/self/fd"


class ProcessMetrics:
    """A collector for a registry. Where there is no /proc, it has no metrics, like the library's."""

    def __init__(self) -> None:
        self._metrics: Sequence[Metric] = [*ProcessCollector(registry=None).collect()]

    def collect(self) -> Sequence[Metric]:
        """Return the metrics with their values now. The start of the process stays as it was first read."""
        if not self._metrics:
            return ()
        size, resident, *_ = _MEMORY.read_bytes().split()
        now = {
            "process_virtual_memory_bytes": float(size) * _PAGE,
            "process_resident_memory_bytes": float(resident) * _PAGE,
            "process_cpu_seconds": time.process_time(),
            "process_open_fds": float(_open_files()),
            "process_max_fds": float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        }
        for metric in self._metrics:
            if metric.name in now:
                metric.samples = [metric.samples[0]._replace(value=now[metric.name])]
        return self._metrics


def _open_files() -> int:
    """Return the number of open file descriptors. Since Linux 6.2 it is the size of the folder, which was 0 before."""
    return os.stat(_FILES).st_size or len(os.listdir(_FILES))  # noqa: PTH116, PTH208  # half the time of Path
