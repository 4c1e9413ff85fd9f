"""Every cell of the table of health, every row of the status rule, and the numbers that are published."""

from itertools import product

import pytest
from connection_exporter.core.health import Blind, Event, Health, Reason, Status, Verdict, advance, status_of

# What an event makes of session, answer, canary, retry_count and blind.
# "=" leaves the fact; "+1" counts; "= if held" leaves it unless the session is new.
TABLE = {
    Event.BEGUN: ("=", "=", "=", "=", "none"),
    Event.ANSWERED_GOOD: ("up", "good", "= if held", "0", "none"),
    Event.ANSWERED_BAD: ("up", "bad", "= if held", "0", "none"),
    Event.FAILED: ("down", "none", "none", "+1", "none"),
    Event.LOST: ("down", "none", "none", "=", "none"),
    Event.CANARY_GOOD: ("=", "=", "good if held", "=", "="),
    Event.CANARY_BAD: ("=", "=", "bad if held", "=", "="),
    Event.OVERDUE: ("=", "=", "=", "=", "stale"),
    Event.CRASHED: ("down", "none", "none", "+1", "internal"),
    Event.STOPPED: ("down", "none", "none", "0", "stopped"),
}

DOWN = [(False, Verdict.NONE, Verdict.NONE, count) for count in (0, 1, 2, 3, 1000)]
UP = [(True, answer, canary, 0) for answer in (Verdict.GOOD, Verdict.BAD) for canary in Verdict]
FACTS = [Health(*facts, blind) for facts, blind in product(DOWN + UP, Blind)]
"""Every state of a service, with small retry counts."""

Facts = tuple[str, str, str, int, str]


def written(health: Health) -> Facts:
    return (
        "up" if health.session_up else "down",
        health.answer.value,
        health.canary.value,
        health.retry_count,
        health.blind.value,
    )


def expected(before: Health, event: Event) -> Facts:
    """Read the row of ``event``, for the facts ``before`` it."""
    session, answer, canary, retry_count, blind = written(before)
    row = TABLE[event]
    return (
        session if row[0] == "=" else row[0],
        answer if row[1] == "=" else row[1],
        {
            "=": canary,
            "none": "none",
            "= if held": canary if session == "up" else "none",
            "good if held": "good" if session == "up" else canary,
            "bad if held": "bad" if session == "up" else canary,
        }[row[2]],
        {"=": retry_count, "+1": retry_count + 1, "0": 0}[row[3]],
        blind if row[4] == "=" else row[4],
    )


@pytest.mark.parametrize("event", Event)
def test_an_event_changes_the_facts_as_the_table_says(event: Event) -> None:
    """Each cell, from all that a service can be in."""
    assert {before: written(advance(before, event)) for before in FACTS} == {
        before: expected(before, event) for before in FACTS
    }


# A life in facts, one line for each event: session, answer, canary, retry_count, blind.
LIFE: list[tuple[Event, Facts]] = [
    (Event.BEGUN, ("down", "none", "none", 0, "none")),
    (Event.FAILED, ("down", "none", "none", 1, "none")),
    (Event.CANARY_GOOD, ("down", "none", "none", 1, "none")),
    (Event.CRASHED, ("down", "none", "none", 2, "internal")),
    (Event.FAILED, ("down", "none", "none", 3, "none")),
    (Event.ANSWERED_BAD, ("up", "bad", "none", 0, "none")),
    (Event.ANSWERED_GOOD, ("up", "good", "none", 0, "none")),
    (Event.CANARY_BAD, ("up", "good", "bad", 0, "none")),
    (Event.ANSWERED_GOOD, ("up", "good", "bad", 0, "none")),
    (Event.OVERDUE, ("up", "good", "bad", 0, "stale")),
    (Event.CANARY_GOOD, ("up", "good", "good", 0, "stale")),
    (Event.ANSWERED_BAD, ("up", "bad", "good", 0, "none")),
    (Event.LOST, ("down", "none", "none", 0, "none")),
    (Event.FAILED, ("down", "none", "none", 1, "none")),
    (Event.LOST, ("down", "none", "none", 1, "none")),
    (Event.OVERDUE, ("down", "none", "none", 1, "stale")),
    (Event.STOPPED, ("down", "none", "none", 0, "stopped")),
]


def test_a_service_lives_through_its_facts() -> None:
    """The same table, read as the story of one service."""
    health, story = Health(), []
    for event, _ in LIFE:
        health = advance(health, event)
        story.append((event, written(health)))
    assert story == LIFE


def test_a_service_begins_with_nothing_known() -> None:
    """Before its first attempt a service is unknown, for it was not tried."""
    assert written(Health()) == ("down", "none", "none", 0, "starting")
    assert status_of(Health(), retries=1) is Status.UNKNOWN


# session_up, answer, canary, retry_count, blind, retries: the status.
STATUSES = [
    # not blind, and no session
    (False, "none", "none", 0, "none", 1, "connecting"),
    (False, "none", "none", 1, "none", 1, "disconnected"),
    (False, "none", "none", 1, "none", 3, "connecting"),
    (False, "none", "none", 2, "none", 3, "connecting"),
    (False, "none", "none", 3, "none", 3, "disconnected"),
    (False, "none", "none", 4, "none", 3, "disconnected"),
    # a session: either signal can be bad
    (True, "good", "none", 0, "none", 3, "healthy"),
    (True, "good", "good", 0, "none", 3, "healthy"),
    (True, "good", "bad", 0, "none", 3, "unhealthy"),
    (True, "bad", "none", 0, "none", 3, "unhealthy"),
    (True, "bad", "good", 0, "none", 3, "unhealthy"),
    (True, "bad", "bad", 0, "none", 3, "unhealthy"),
    # blind: nothing else counts
    *(
        (*facts, blind, 3, "unknown")
        for blind in ("starting", "stale", "internal", "stopped")
        for facts in (
            (False, "none", "none", 0),
            (False, "none", "none", 3),
            (True, "good", "good", 0),
            (True, "bad", "bad", 0),
        )
    ),
]


@pytest.mark.parametrize(
    ("session_up", "answer", "canary", "retry_count", "blind", "retries", "status"), STATUSES
)
def test_the_status_is_the_first_row_that_holds(
    *, session_up: bool, answer: str, canary: str, retry_count: int, blind: str, retries: int, status: str
) -> None:
    """Each row of the status rule, at its limits."""
    health = Health(session_up, Verdict(answer), Verdict(canary), retry_count, Blind(blind))
    assert status_of(health, retries=retries).value == status


def test_a_good_answer_changes_no_fact_of_a_healthy_service() -> None:
    """`Board` leaves the table out for these, which are nearly all events."""
    healthy = [health for health in FACTS if status_of(health, retries=3) is Status.HEALTHY]
    assert healthy
    assert [advance(health, Event.ANSWERED_GOOD) for health in healthy] == healthy


def test_codes_ascend_by_severity_with_unknown_lowest() -> None:
    """The numbers are published: a dashboard depends on each, ``max_over_time`` on their order."""
    assert {status.value: status.code for status in Status} == {
        "unknown": 0,
        "healthy": 1,
        "connecting": 2,
        "unhealthy": 3,
        "disconnected": 4,
    }


# fmt: off
PUBLISHED = [
    "dns", "refused", "unreachable", "timeout", "reset", "eof", "tls", "protocol", "auth", "starting", "shutdown",
    "slots_full", "missing", "query", "expect", "slow", "role", "gap", "closed", "too_large", "redirect", "exit",
    "zombie", "stopped", "ambiguous", "heartbeat", "permission", "idle_closed", "stale", "internal",
]
# fmt: on


def test_the_reasons_are_the_published_ones() -> None:
    """Label values, JSON and documents name these and no other."""
    assert [reason.value for reason in Reason] == PUBLISHED
