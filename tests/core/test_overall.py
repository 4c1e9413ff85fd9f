"""The overall status: each row of its table, and which row goes before which."""

import pytest
from connection_exporter.core.health import Status
from connection_exporter.core.overall import Overall, Standing, overall_status

CRITICAL, OPTIONAL = True, False
WAS_UP, NEVER_UP = True, False

OK = (Status.HEALTHY, CRITICAL, WAS_UP)

# standings as (status, critical, has been up), whether monitoring is active, the overall status
ROWS: list[tuple[list[tuple[Status, bool, bool]], bool, str]] = [
    # otherwise it is healthy
    ([], True, "healthy"),
    ([OK], True, "healthy"),
    ([OK, (Status.HEALTHY, OPTIONAL, WAS_UP)], True, "healthy"),
    # it is degraded when any service is not healthy
    ([OK, (Status.UNHEALTHY, CRITICAL, WAS_UP)], True, "degraded"),
    ([OK, (Status.UNHEALTHY, OPTIONAL, WAS_UP)], True, "degraded"),
    ([OK, (Status.CONNECTING, CRITICAL, WAS_UP)], True, "degraded"),
    ([OK, (Status.CONNECTING, OPTIONAL, WAS_UP)], True, "degraded"),
    ([OK, (Status.CONNECTING, OPTIONAL, NEVER_UP)], True, "degraded"),
    ([OK, (Status.DISCONNECTED, OPTIONAL, WAS_UP)], True, "degraded"),
    ([OK, (Status.DISCONNECTED, OPTIONAL, NEVER_UP)], True, "degraded"),
    ([OK, (Status.UNKNOWN, OPTIONAL, WAS_UP)], True, "degraded"),
    ([OK, (Status.UNKNOWN, OPTIONAL, NEVER_UP)], True, "degraded"),
    # it is unknown when not active, or with a critical one unknown, or connecting without having been up
    ([OK], False, "unknown"),
    ([], False, "unknown"),
    ([OK, (Status.UNHEALTHY, CRITICAL, WAS_UP)], False, "unknown"),
    ([OK, (Status.UNKNOWN, CRITICAL, WAS_UP)], True, "unknown"),
    ([OK, (Status.UNKNOWN, CRITICAL, NEVER_UP)], True, "unknown"),
    ([OK, (Status.CONNECTING, CRITICAL, NEVER_UP)], True, "unknown"),
    # it is partial when a critical service is disconnected, whatever else is
    ([OK, (Status.DISCONNECTED, CRITICAL, WAS_UP)], True, "partial"),
    ([OK, (Status.DISCONNECTED, CRITICAL, NEVER_UP)], True, "partial"),
    ([(Status.UNKNOWN, CRITICAL, NEVER_UP), (Status.DISCONNECTED, CRITICAL, WAS_UP)], True, "partial"),
    ([(Status.DISCONNECTED, CRITICAL, WAS_UP)], False, "partial"),
]


@pytest.mark.parametrize(("standings", "active", "overall"), ROWS)
def test_the_overall_status_is_the_first_row_that_holds(
    standings: list[tuple[Status, bool, bool]], *, active: bool, overall: str
) -> None:
    """Each row, and each pair of rows that hold together."""
    given = [Standing(*standing) for standing in standings]
    assert overall_status(given, active=active).value == overall
    assert overall_status(reversed(given), active=active).value == overall


def test_codes_and_what_health_answers() -> None:
    """The numbers that are published, and which of them let a load balancer send traffic."""
    assert {overall.value: (overall.code, overall.serving) for overall in Overall} == {
        "unknown": (0, False),
        "healthy": (1, True),
        "degraded": (2, True),
        "partial": (3, False),
    }
