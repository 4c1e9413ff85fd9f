"""What only a network of our own can show: packets that vanish, a resolver that is silent, a name that moves.

Each scenario is in inside.py and runs in a child process; where no namespaces can be made, it is skipped.
"""

import pytest
from support.inside import in_namespace, why_not

BOUND = 11.0
"""Seconds: TCP keep-alive after 5 s, every 2 s, three times. Another is allowed for a loaded machine."""


def needs(*programs: str) -> pytest.MarkDecorator:
    reason = why_not(*programs)
    return pytest.mark.skipif(reason is not None, reason=reason or "")


@needs("iptables")
def test_packets_that_vanish_are_noticed_by_keep_alive() -> None:
    """With no probe under way a half-open session is lost within 11 s, and a connect into the hole times out."""
    outcome = in_namespace("packets_vanish_in_mid_session")
    print(outcome)
    assert len(outcome["seconds"]) == 3
    for name, seconds in outcome["seconds"].items():
        assert 4.0 < seconds < BOUND + 1.0, f"{name}: {seconds:.1f} s"
    reason, message = outcome["connect"]
    assert reason == "timeout"
    assert "does not answer a connection attempt" in message
    assert outcome["lost"] == [1, 1, 1]


@needs()
def test_a_name_that_leads_elsewhere_moves_the_session() -> None:
    """The canary's connection takes the place of the session within one canary period; nothing is lost."""
    outcome = in_namespace("the_name_leads_elsewhere")
    assert outcome["local"], "the session is gone"
    assert all(local.startswith("laddr=127.0.0.2:") for local in outcome["local"]), outcome["local"]
    assert outcome["path"] == ["connecting", "healthy"]
    assert (outcome["lost"], outcome["sessions"]) == (0, 1)
    assert outcome["canary"] is True


@needs()
def test_twenty_stuck_look_ups_disturb_nobody() -> None:
    """`dns` for the twenty, all the while healthy for their neighbour, answers in milliseconds, and an exit in 2 s."""
    outcome = in_namespace("twenty_stuck_look_ups")
    services = outcome["reasons"]
    assert len(services) == 21
    assert services.pop("redis")[0] == "healthy"
    for name, (status, reason, message) in services.items():
        assert (status, reason) == ("disconnected", "dns"), f"{name}: {message}"
        assert "resolver does not answer" in message
    assert outcome["redis"] == ["connecting", "healthy"]
    assert outcome["slowest"] < 5, "an answer waited for a look-up, which takes 20 s"
    assert outcome["status"] == 0
    assert outcome["ended"] < 10, "the exit waited for a look-up, which takes 20 s"


@needs()
def test_a_port_that_clients_get_is_refused_and_stays_free() -> None:
    """An attempt that is given the very port it connects to would meet itself, and keep the service from starting."""
    outcome = in_namespace("a_port_that_clients_get")
    assert outcome["reported"] == ["refused"] * 10
