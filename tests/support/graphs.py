"""Graphs of dependencies, a board of services that depend on each other, and all reports that one may get."""

from collections.abc import Iterable, Mapping

from connection_exporter.core.health import Event, Reason
from connection_exporter.core.retry import Policy
from connection_exporter.kind import About, Service
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.system.clock import SystemClock
from hypothesis import strategies as st

from support.scripted import BAD, GOOD, ScriptedCheck

NAMES = [f"s{number}" for number in range(8)]
Graph = Mapping[str, Iterable[str]]
EVENTS = [
    Report(Event.BEGUN),
    Report(Event.ANSWERED_GOOD, observation=GOOD),
    Report(Event.ANSWERED_BAD, Reason.EXPECT, "bad", observation=BAD),
    Report(Event.FAILED, Reason.REFUSED, "refused"),
    Report(Event.FAILED, Reason.REFUSED, "refused"),  # with two of them, a service is disconnected
    Report(Event.LOST, Reason.EOF, "closed"),
    Report(Event.OVERDUE),
    Report(Event.STOPPED),
]


@st.composite
def acyclic(draw: st.DrawFn) -> Graph:
    """Draw a graph in which each service depends on later ones only, in any order of names."""
    names = draw(st.permutations(NAMES))
    return {
        name: draw(st.lists(st.sampled_from(names[place + 1 :]), unique=True)) if names[place + 1 :] else []
        for place, name in enumerate(names)
    }


def reachable(name: str, graph: Graph) -> set[str]:
    """Return the transitive dependencies, by the definition."""
    return set(graph[name]).union(*(reachable(other, graph) for other in graph[name]))


def board_of(graph: Graph, *, policy: Policy = Policy(retries=2), **about: About) -> Board:  # noqa: B008
    """Return a board of services that depend on each other as ``graph`` says, unless ``about`` describes one."""
    services = [
        Service(
            name,
            "scripted",
            ScriptedCheck(),
            policy,
            about=about.get(name, About(depends_on=tuple(depends_on))),
        )
        for name, depends_on in graph.items()
    ]
    return Board(services, SystemClock())
