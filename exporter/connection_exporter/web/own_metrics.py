"""Owns the exporter's metrics about itself and about all services together, in a prometheus_client registry."""

import asyncio
import platform
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector

from connection_exporter import __version__
from connection_exporter.alerting.push import Deliveries
from connection_exporter.config.shard import WHOLE, Shard
from connection_exporter.monitor.board import Board
from connection_exporter.system.wakeup import until_next
from connection_exporter.web.process_metrics import ProcessMetrics

_LAG_EVERY: Final = 0.5
_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class OwnMetrics:
    """The registry that is exposed after the services, and the task that measures the event loop's lag.

    ``deliveries`` returns what is known of direct alerting, ``callbacks_dropped`` the number of transitions that slow
    subscribers lost, ``log_lines_dropped`` that of log lines that could not be written.
    """

    def __init__(
        self,
        board: Board,
        *,
        callbacks_dropped: Callable[[], int],
        deliveries: Callable[[], Deliveries | None] = lambda: None,
        log_lines_dropped: Callable[[], int] = lambda: 0,
        shard: Shard = WHOLE,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self._board = board
        self._callbacks_dropped = callbacks_dropped
        self._deliveries = deliveries
        self._log_lines_dropped = log_lines_dropped
        self._shard = shard
        self._reload_successful = True
        self._reloaded_at = board.clock.wall()
        self._lag = Histogram(
            "connection_exporter_loop_lag_seconds",
            "How late the event loop woke up a task that had slept.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(self)
        PlatformCollector(registry=self.registry)
        self.registry.register(ProcessMetrics())
        GCCollector(registry=self.registry)

    def reloaded(self, *, successful: bool) -> None:
        """Note the result of reading the config again."""
        self._reload_successful = successful
        if successful:
            self._reloaded_at = self._board.clock.wall()

    async def measure_lag(self) -> None:
        """Measure the lag of the event loop, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            seconds = until_next(_LAG_EVERY)
            due = loop.time() + seconds
            await asyncio.sleep(seconds)
            self._lag.observe(max(loop.time() - due, 0.0))

    def collect(self) -> Iterator[Metric]:
        """Yield what is read from the board at scrape time."""
        board = self._board
        yield GaugeMetricFamily(
            "connection_overall_status",
            "Overall status: 0 unknown, 1 healthy, 2 degraded, 3 partial.",
            board.overall().code,
        )
        yield GaugeMetricFamily("connection_monitor_active", "Whether monitoring is active.", board.active)
        yield CounterMetricFamily("connection_forced_checks", "Forced rounds of checks.", board.forced_checks)
        build = GaugeMetricFamily(
            "connection_exporter_build_info", "What is running.", labels=["version", "pythonversion"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        shard = GaugeMetricFamily(
            "connection_exporter_shard",
            "Which of how many exporters that share a config this is, counted from 0.",
            labels=["index", "total"],
        )
        shard.add_metric([str(self._shard.index), str(self._shard.total)], 1)
        yield shard
        yield GaugeMetricFamily(
            "connection_exporter_config_last_reload_successful",
            "Whether the config was good when it was last read.",
            self._reload_successful,
        )
        yield GaugeMetricFamily(
            "connection_exporter_config_last_reload_success_timestamp_seconds",
            "When a good config was last read, in seconds since the epoch.",
            self._reloaded_at,
        )
        yield CounterMetricFamily(
            "connection_exporter_callbacks_dropped",
            "Transitions that a slow subscriber lost.",
            self._callbacks_dropped(),
        )
        yield CounterMetricFamily(
            "connection_exporter_log_lines_dropped",
            "Log lines that could not be written: standard error was full or closed.",
            self._log_lines_dropped(),
        )
        yield from self._alerting()

    def _alerting(self) -> Iterator[Metric]:
        deliveries = self._deliveries()
        sent = CounterMetricFamily(
            "connection_exporter_alerts_sent",
            "Alerts that an Alertmanager has accepted, repetitions included.",
            labels=["alertmanager"],
        )
        failed = CounterMetricFamily(
            "connection_exporter_alerts_failed",
            "Alerts that could not be delivered to an Alertmanager, at each attempt.",
            labels=["alertmanager"],
        )
        healthy = GaugeMetricFamily(
            "connection_exporter_alerting_healthy",
            "Whether the last delivery to at least one Alertmanager succeeded; absent without `alerting`.",
        )
        if deliveries is not None:
            healthy.add_metric([], deliveries.healthy)
            for place, (count_sent, count_failed) in deliveries.counts.items():
                sent.add_metric([place], count_sent)
                failed.add_metric([place], count_failed)
        yield from (sent, failed, healthy)
