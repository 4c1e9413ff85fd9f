"""Causes follow the contract for any graph and any sequence of faults and recoveries."""

from itertools import pairwise

from connection_exporter.core.causes import Causes, find_cycle
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import NAMES, Graph, acyclic, reachable


def defined(name: str, graph: Graph, faulty: set[str]) -> set[str]:
    """Return the causes, by the definition."""
    if name not in faulty:
        return set()
    return {other for other in reachable(name, graph) & faulty if not reachable(other, graph) & faulty}


any_graph = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from([*NAMES, "missing"]), max_size=4), min_size=1
)
faults_in_turn = st.lists(st.tuples(st.sampled_from([*NAMES, "missing"]), st.booleans()), max_size=40)


@given(acyclic(), faults_in_turn)
def test_a_cause_is_a_faulty_dependency_without_a_faulty_dependency(
    graph: Graph, changes: list[tuple[str, bool]]
) -> None:
    causes, faulty = Causes(graph), set[str]()
    for name, is_faulty in changes:
        before = {each: causes.causes(each) for each in graph}
        changed = causes.update(name, is_faulty=is_faulty)
        (faulty.add if is_faulty else faulty.discard)(name)
        for each in graph:
            found = causes.causes(each)
            assert set(found) == defined(each, graph, faulty)
            assert len(found) == len(set(found))
            assert causes.has_cause(each) == bool(found)
            assert causes.is_unexplained(each) == (each in faulty and not found)
            assert (each in changed) == (found != before[each])


@given(acyclic(), faults_in_turn)
def test_a_faulty_service_has_a_cause_exactly_if_a_dependency_is_faulty(
    graph: Graph, changes: list[tuple[str, bool]]
) -> None:
    causes, faulty = Causes(graph), set[str]()
    for name, is_faulty in changes:
        causes.update(name, is_faulty=is_faulty)
        (faulty.add if is_faulty else faulty.discard)(name)
    for name in faulty & graph.keys():
        assert causes.has_cause(name) == bool(reachable(name, graph) & faulty)
        for cause in causes.causes(name):
            assert not causes.has_cause(cause)


@given(any_graph, faults_in_turn)
def test_cycles_and_unknown_names_raise_nothing(graph: Graph, changes: list[tuple[str, bool]]) -> None:
    causes = Causes(graph)
    for name, is_faulty in changes:
        causes.update(name, is_faulty=is_faulty)
    for name in (*graph, "missing"):
        assert name not in causes.causes(name)
        assert all(name in causes.dependencies(other) for other in causes.dependents(name))


@given(acyclic())
def test_dependencies_and_dependents_are_transitive(graph: Graph) -> None:
    causes = Causes(graph)
    for name in graph:
        assert set(causes.dependencies(name)) == reachable(name, graph)
        assert set(causes.dependents(name)) == {other for other in graph if name in reachable(other, graph)}


@given(any_graph)
def test_a_cycle_is_found_exactly_if_there_is_one(graph: Graph) -> None:
    cycle = find_cycle(graph)
    if cycle is None:
        left = dict(graph)
        while leaves := [name for name in left if not set(left[name]) & left.keys()]:
            for name in leaves:
                del left[name]
        assert left == {}
    else:
        assert cycle[0] == cycle[-1]
        assert all(there in graph[here] for here, there in pairwise(cycle))


def test_causes_come_in_the_order_of_the_config() -> None:
    causes = Causes({"api": ["redis", "database"], "database": [], "redis": []})
    for name in ("redis", "api", "database"):
        causes.update(name, is_faulty=True)
    assert causes.causes("api") == ("database", "redis")


def test_a_long_chain_takes_no_recursion_and_no_table_of_all_pairs() -> None:
    graph = {str(number): [str(number + 1)] for number in range(10_000)} | {"10000": []}
    assert find_cycle(graph) is None
    causes = Causes(graph)
    causes.update("0", is_faulty=True)
    assert causes.update("10000", is_faulty=True) == ["0"]
    assert causes.causes("0") == ("10000",)


def test_a_change_of_one_service_visits_only_those_that_it_concerns() -> None:
    """10,000 services that depend on one database fail one after another: each change concerns one service."""
    effects = [f"s{number}" for number in range(10_000)]
    causes = Causes({"database": [], **{name: ["database"] for name in effects}})
    causes.update("database", is_faulty=True)
    assert all(causes.update(name, is_faulty=True) == [name] for name in effects)
    assert causes.update("database", is_faulty=False) == effects
