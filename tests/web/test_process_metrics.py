"""The metrics of the process are those of the reference library."""

import os

import pytest
from connection_exporter.web.process_metrics import ProcessMetrics
from prometheus_client.process_collector import ProcessCollector


def test_they_are_those_of_the_reference_library() -> None:
    """Names, types, texts and, while nothing happens, values; also at a second look."""
    ours = ProcessMetrics()
    for _ in range(2):
        expected = {metric.name: metric for metric in ProcessCollector(registry=None).collect()}
        found = {metric.name: metric for metric in ours.collect()}
        assert list(found) == list(expected)
        for name, metric in found.items():
            other = expected[name]
            assert (metric.documentation, metric.type) == (other.documentation, other.type)
            (sample,), (other_sample,) = metric.samples, other.samples
            assert (sample.name, sample.labels) == (other_sample.name, other_sample.labels)
            slack = {"process_open_fds": 1.0, "process_cpu_seconds": 0.5}.get(name, 0.05 * other_sample.value)
            assert sample.value == pytest.approx(other_sample.value, abs=slack), name


def test_each_file_that_is_opened_is_counted() -> None:
    """Also by kernels that do not count them."""
    ours = ProcessMetrics()

    def count() -> float:
        return next(m for m in ours.collect() if m.name == "process_open_fds").samples[0].value

    before = count()
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    try:
        assert count() == before + 3
    finally:
        for file in files:
            os.close(file)
    assert count() == before


def test_a_kernel_that_does_not_count_files_has_them_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.2, the size of the folder is 0, as that of another one still is."""
    monkeypatch.setattr("connection_exporter.web.process_metrics._FILES", "/proc/self/task")
    listed = next(m for m in ProcessMetrics().collect() if m.name == "process_open_fds").samples[0].value
    assert listed == len(os.listdir("/proc/self/task"))  # noqa: PTH208


def test_a_platform_without_proc_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as macOS."""
    monkeypatch.setattr(ProcessCollector, "collect", lambda _: [])
    assert [*ProcessMetrics().collect()] == []
