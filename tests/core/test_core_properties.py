"""What holds of the core for any sequence of events and for any policy."""

from typing import Final

from connection_exporter.core.health import Blind, Event, Health, Status, Verdict, advance, status_of
from connection_exporter.core.overall import Overall, Standing, overall_status
from connection_exporter.core.retry import Policy, backoff, first_start, recheck, spread
from hypothesis import assume, example, given
from hypothesis import strategies as st

ANSWERS: Final = (Event.ANSWERED_GOOD, Event.ANSWERED_BAD)
CANARIES: Final = (Event.CANARY_GOOD, Event.CANARY_BAD)
NO_ANSWER: Final = (Event.FAILED, Event.LOST, Event.CRASHED, Event.STOPPED)

events = st.sampled_from(Event)
histories = st.lists(events, max_size=40)
shares = st.floats(0, 1)
retries = st.integers(1, 10)
delays = st.floats(0.001, 3600)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy that the config lets through."""
    shortest, longest = sorted((draw(delays), draw(delays)))
    return Policy(interval=draw(st.floats(0.1, 3600)), retry_delay=shortest, max_retry_delay=longest)


def after(history: list[Event]) -> Health:
    health = Health()
    for event in history:
        health = advance(health, event)
    return health


@given(histories)
def test_without_a_session_there_is_no_answer_and_no_canary(history: list[Event]) -> None:
    """Nothing that was said over a session outlives it, and a session is up from its first answer."""
    health = after(history)
    assert health.session_up is (health.answer is not Verdict.NONE)
    assert health.session_up or health.canary is Verdict.NONE


@given(histories, st.sampled_from(ANSWERS))
def test_any_answer_raises_the_session_and_sets_the_retry_count_to_zero(
    history: list[Event], answer: Event
) -> None:
    """Good or bad: somebody answered."""
    health = after([*history, answer])
    assert health.session_up
    assert health.retry_count == 0
    assert health.blind is Blind.NONE


@given(histories, st.sampled_from(NO_ANSWER))
def test_no_session_survives_an_attempt_with_no_answer(history: list[Event], event: Event) -> None:
    """Failed, lost, crashed or stopped: the session is down."""
    assert not after([*history, event]).session_up


@given(histories)
def test_a_session_is_up_only_without_failed_attempts(history: list[Event]) -> None:
    """The retry count is what happened since the last answer."""
    health = after(history)
    assert not (health.session_up and health.retry_count)


@given(histories)
def test_the_retry_count_is_the_failures_since_the_last_answer(history: list[Event]) -> None:
    """Losses, canaries and waiting count nothing."""
    failures = 0
    for event in history:
        if event in (*ANSWERS, Event.STOPPED):
            failures = 0
        elif event in (Event.FAILED, Event.CRASHED):
            failures += 1
    assert after(history).retry_count == failures


@given(histories, st.lists(st.sampled_from(CANARIES), min_size=1, max_size=5))
def test_a_canary_changes_nothing_but_the_canary(history: list[Event], canaries: list[Event]) -> None:
    """It never raises a session, ends one, or counts as an attempt."""
    before, then = after(history), after([*history, *canaries])
    assert (before.session_up, before.answer, before.retry_count, before.blind) == (
        then.session_up,
        then.answer,
        then.retry_count,
        then.blind,
    )


@given(histories, st.sampled_from(CANARIES), st.sampled_from(NO_ANSWER), st.sampled_from(ANSWERS))
def test_a_new_session_knows_no_canary(
    history: list[Event], canary: Event, ending: Event, answer: Event
) -> None:
    """A verdict belongs to the session in which it was made."""
    assert after([*history, canary, ending, answer]).canary is Verdict.NONE


@given(histories)
@example([Event.CRASHED] * 40)
def test_blindness_is_what_the_last_event_that_touches_it_says(history: list[Event]) -> None:
    """Canaries touch it not; a result clears it."""
    blind = Blind.STARTING
    for event in history:
        if event is Event.OVERDUE:
            blind = Blind.STALE
        elif event is Event.CRASHED:
            blind = Blind.INTERNAL
        elif event is Event.STOPPED:
            blind = Blind.STOPPED
        elif event not in CANARIES:
            blind = Blind.NONE
    assert after(history).blind is blind


@given(histories, retries)
def test_every_history_has_a_status(history: list[Event], retries: int) -> None:
    """The rule is total, and each status means what it says."""
    health = after(history)
    status = status_of(health, retries=retries)
    assert (status is Status.UNKNOWN) == (health.blind is not Blind.NONE)
    if status in (Status.HEALTHY, Status.UNHEALTHY):
        assert health.session_up
    if status in (Status.CONNECTING, Status.DISCONNECTED):
        assert not health.session_up
    assert status is not Status.HEALTHY or Verdict.BAD not in (health.answer, health.canary)


@given(histories, retries)
def test_a_good_answer_changes_nothing_about_a_healthy_service(history: list[Event], retries: int) -> None:
    """So the board does not ask what it changes."""
    health = after(history)
    if status_of(health, retries=retries) is Status.HEALTHY:
        assert advance(health, Event.ANSWERED_GOOD) == health


@given(histories, retries)
def test_more_retries_never_make_a_service_look_worse(history: list[Event], retries: int) -> None:
    """Patience turns disconnected into connecting, and nothing else."""
    health = after(history)
    patient, hasty = status_of(health, retries=retries + 1), status_of(health, retries=retries)
    assert patient is hasty or (patient, hasty) == (Status.CONNECTING, Status.DISCONNECTED)


@given(policies(), st.integers(0, 10**6), shares)
def test_a_back_off_keeps_within_its_limits(policy: Policy, failures: int, rand: float) -> None:
    """Never sooner than 0.8 x retry_delay, never later than 1.2 x max_retry_delay."""
    delay = backoff(policy, failures=failures, rand=rand)
    assert 0.8 * policy.retry_delay <= delay * (1 + 1e-12)
    assert delay <= 1.2 * policy.max_retry_delay * (1 + 1e-12)


@given(policies(), st.integers(0, 10**6), shares)
def test_a_back_off_never_shrinks_with_failures(policy: Policy, failures: int, rand: float) -> None:
    """For the same random number."""
    assert backoff(policy, failures=failures, rand=rand) <= backoff(policy, failures=failures + 1, rand=rand)


@given(policies(), st.integers(1, 10**6))
def test_a_recheck_comes_within_the_interval(policy: Policy, bad_answers: int) -> None:
    """And is later with each bad answer, or as late."""
    delay = recheck(policy, bad_answers=bad_answers)
    assert 0 < delay <= policy.interval
    assert delay <= recheck(policy, bad_answers=bad_answers + 1)


@given(policies(), st.integers(1, 2000))
def test_first_starts_keep_their_order_and_their_room(policy: Policy, total: int) -> None:
    """All of them within min(2 s, interval), the same distance apart."""
    starts = [first_start(policy, index=index, total=total) for index in range(total)]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] < min(2.0, policy.interval)


@given(shares, shares)
def test_a_spread_keeps_the_order_of_random_numbers(one: float, other: float) -> None:
    """And stays within a fifth to either side."""
    assume(one <= other)
    assert 0.8 <= spread(one) <= spread(other) <= 1.2 + 1e-12


standings = st.builds(Standing, st.sampled_from(Status), st.booleans(), st.booleans())


@given(services=st.lists(standings), active=st.booleans())
def test_every_set_of_services_has_an_overall_status(*, services: list[Standing], active: bool) -> None:
    """Total; green only when all are; and a service that is not critical never closes the door."""
    overall = overall_status(services, active=active)
    all_healthy = all(s.status is Status.HEALTHY for s in services)
    assert (overall is Overall.HEALTHY) == (active and all_healthy)
    if active and not any(s.critical for s in services):
        assert overall.serving
