"""Services are spread over the exporters that share a config, and few of them ever move."""

from collections import Counter

import pytest
from connection_exporter.config import Config
from connection_exporter.config.shard import WHOLE, Shard, owner, parse_shard
from connection_exporter.kinds import load_text
from hypothesis import given
from hypothesis import strategies as st

NAMES = [f"service_{number}" for number in range(10_000)]


def config_of(dependencies: dict[str, list[str]]) -> Config:
    services = (
        f"  {name}: {{kind: process, pidfile: /run/{name}.pid, depends_on: {needed}}}\n"
        for name, needed in dependencies.items()
    )
    return load_text("services:\n" + "".join(services))


@given(
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_-]{0,20}", fullmatch=True), st.just([]), min_size=1),
    st.integers(1, 9),
)
def test_each_service_is_monitored_by_exactly_one_shard(services: dict[str, list[str]], total: int) -> None:
    """Whatever the names and the number of shards."""
    config = config_of(services)
    shares = [Shard(index, total).share_of(config).services for index in range(total)]
    assert Counter(name for share in shares for name in share) == Counter(list(services))


@pytest.mark.parametrize("total", [1, 2, 3, 4, 9])
def test_one_more_shard_takes_its_part_from_all_others_and_moves_nothing_else(total: int) -> None:
    """1/N of the services move, and all of them to the new shard."""
    before = {name: owner(name, total) for name in NAMES}
    after = {name: owner(name, total + 1) for name in NAMES}
    moved = [name for name in NAMES if before[name] != after[name]]
    assert {after[name] for name in moved} == {total}
    assert len(moved) == pytest.approx(len(NAMES) / (total + 1), rel=0.1)


@pytest.mark.parametrize("total", [2, 3, 10])
def test_shards_are_of_similar_size(total: int) -> None:
    """No exporter gets much more than its part."""
    sizes = Counter(owner(name, total) for name in NAMES)
    assert len(sizes) == total
    assert max(sizes.values()) < 1.15 * len(NAMES) / total


def test_the_assignment_never_changes() -> None:
    """Exporters of two versions run side by side during an upgrade."""
    assert [owner(name, 3) for name in ("database", "redis", "bot_process", "external_api", "websocket")] == [
        *(0, 0, 2, 0, 0)
    ]


def test_a_dependency_in_another_shard_has_no_effect_and_is_reported() -> None:
    """The shard does not know the state of what it does not monitor."""
    config = config_of({"database": [], "cache": [], "api": ["database", "cache"]})
    assert [owner(name, 2) for name in config.services] == [0, 1, 1]
    share = Shard(1, 2).share_of(config)
    assert share.services["api"].depends_on == ["cache"]
    assert share.notes == ("api: depends_on database has no effect: it is monitored by shard 0/2",)


def test_a_shard_without_services_is_reported() -> None:
    """It runs, so that no pod of a StatefulSet restarts forever."""
    config = config_of({"database": []})
    shares = [Shard(index, 2).share_of(config) for index in range(2)]
    assert [share.notes for share in shares if not share.services] == [
        (f"shard {1 - owner('database', 2)}/2 has no services: use fewer shards",)
    ]


def test_without_sharding_a_config_is_as_it_was() -> None:
    """The usual case costs nothing."""
    config = config_of({"database": []})
    assert WHOLE.share_of(config) is config


@pytest.mark.parametrize(
    ("text", "host_name", "shard"),
    [
        ("0/3", "anything", Shard(0, 3)),
        ("2/3", "exporter-0", Shard(2, 3)),
        ("3", "connection-exporter-2", Shard(2, 3)),
        ("3", "connection-exporter-0.exporters.monitoring.svc.cluster.local", Shard(0, 3)),
        ("1", "laptop", WHOLE),
    ],
)
def test_a_shard_is_a_pair_or_a_total_with_the_ordinal_of_the_pod(
    text: str, host_name: str, shard: Shard
) -> None:
    """A pair says all; a total alone is for a StatefulSet, where all pods have the same arguments."""
    assert parse_shard(text, host_name) == shard


@pytest.mark.parametrize(
    ("text", "host_name", "message"),
    [
        ("3/3", "x", "shard 3 of 3 does not exist: write --shard=K/N with K from 0 to N-1"),
        ("0/0", "x", "shard 0 of 0 does not exist"),
        ("a/b", "x", "'a/b' is not a shard"),
        ("-1/3", "x", "'-1/3' is not a shard"),
        ("", "x", "'' is not a shard"),
        ("3", "laptop", "the host name 'laptop' does not end in a number, as a StatefulSet's do"),
        ("3", "exporter-3", "shard 3 of 3 does not exist"),
    ],
)
def test_what_is_no_shard_is_refused_with_the_fix(text: str, host_name: str, message: str) -> None:
    """Counting from 1 is the likely mistake."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is what is tested
        parse_shard(text, host_name)
    assert str(refused.value).startswith(message)
