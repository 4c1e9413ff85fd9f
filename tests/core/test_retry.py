"""When to try again: each rule by its numbers, with the defaults of the product."""

import pytest
from connection_exporter.core.retry import (
    Policy,
    backoff,
    first_start,
    overdue_after,
    recheck,
    reconnects_at_once,
    spread,
)

DEFAULTS = Policy()
MIDDLE = 0.5  # a random number that spreads nothing


def test_the_defaults_are_those_of_the_config() -> None:
    """A library user who gives no policy gets what the config file gives."""
    assert Policy() == Policy(
        interval=30, timeout=5, retries=3, retry_delay=5, max_retry_delay=30, canary=300, critical=True
    )
    assert Policy().max_latency is None


@pytest.mark.parametrize(("rand", "factor"), [(0.0, 0.8), (0.25, 0.9), (0.5, 1.0), (1.0, 1.2)])
def test_a_random_number_spreads_by_a_fifth_to_either_side(rand: float, factor: float) -> None:
    """What failed together shall not return together."""
    assert spread(rand) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 5), (1, 5), (2, 10), (3, 20), (4, 30), (5, 30), (1025, 30), (10**9, 30)]
)
def test_the_back_off_doubles_up_to_its_limit(failures: int, seconds: float) -> None:
    """A bare loss waits like a first failure; a number of failures beyond all floats is no error."""
    assert backoff(DEFAULTS, failures=failures, rand=MIDDLE) == pytest.approx(seconds)


@pytest.mark.parametrize(("failures", "shortest", "longest"), [(0, 4, 6), (1, 4, 6), (2, 8, 12), (9, 24, 36)])
def test_the_back_off_is_spread_past_its_limit_too(failures: int, shortest: float, longest: float) -> None:
    """The random factor comes last: services at the limit are spread as well."""
    assert backoff(DEFAULTS, failures=failures, rand=0.0) == pytest.approx(shortest)
    assert backoff(DEFAULTS, failures=failures, rand=1.0) == pytest.approx(longest)


def test_with_the_defaults_a_service_is_disconnected_after_about_fifteen_seconds() -> None:
    """Three refused attempts: at once, after 5 s, after 10 s more."""
    waits = [backoff(DEFAULTS, failures=n, rand=MIDDLE) for n in range(1, DEFAULTS.retries)]
    assert sum(waits) == pytest.approx(15)


@pytest.mark.parametrize(("bad_answers", "seconds"), [(1, 10), (2, 20), (3, 30), (4, 30), (10**6, 30)])
def test_a_bad_answer_is_asked_again_early_and_never_later_than_the_interval(
    bad_answers: int, seconds: float
) -> None:
    """min(interval, retry_delay x 2^k)."""
    assert recheck(DEFAULTS, bad_answers=bad_answers) == pytest.approx(seconds)


def test_a_short_interval_limits_the_recheck() -> None:
    """With an interval below retry_delay, bad answers change nothing."""
    assert recheck(Policy(interval=1), bad_answers=1) == pytest.approx(1)


@pytest.mark.parametrize(("age", "at_once"), [(0.0, False), (4.999, False), (5.0, True), (3600.0, True)])
def test_only_a_session_that_lived_for_retry_delay_is_replaced_at_once(age: float, *, at_once: bool) -> None:
    """A server that answers and closes is never hammered."""
    assert reconnects_at_once(DEFAULTS, session_age=age) is at_once


def test_first_starts_are_spread_evenly_over_two_seconds() -> None:
    """The first starts at once, the last before two seconds have passed."""
    starts = [first_start(DEFAULTS, index=index, total=4) for index in range(4)]
    assert starts == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_first_starts_are_spread_over_the_interval_where_that_is_shorter() -> None:
    """A service with an interval of 100 ms is not made to wait for two seconds."""
    assert first_start(Policy(interval=0.1), index=1, total=2) == pytest.approx(0.05)


def test_a_service_alone_starts_at_once() -> None:
    """One of one, and one that is added later, when there is nobody to make room for."""
    assert first_start(DEFAULTS, index=0, total=1) == 0.0
    assert first_start(DEFAULTS, index=0, total=0) == 0.0


def test_a_result_is_overdue_two_timeouts_after_the_planned_start() -> None:
    """The attempt may take one timeout; the other is for a loop under load."""
    assert overdue_after(DEFAULTS, next_attempt=100.0) == pytest.approx(110.0)
