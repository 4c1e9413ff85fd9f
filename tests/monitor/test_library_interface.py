"""The names that programs import are frozen: `golden/interface.txt` has their signatures, and mypy checks their types.

A change of the file is a change that GOVERNANCE.md wants an issue for. To accept one: run this file as a program.
"""

import dataclasses
import enum
import inspect
import os
import pydoc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import connection_exporter
import pytest
from connection_exporter import (
    Config,
    ConfigError,
    Monitor,
    NotRunning,
    Reason,
    Status,
    TooSoon,
    Transition,
    UnknownService,
    load_config,
)

GOLDEN = Path(__file__).parent / "golden" / "interface.txt"
METHODS = ("add_callback", "status", "force_check", "reload")
"""Of `Monitor`, what docs/library.md names. The others are for the exporter itself."""


def interface() -> Iterator[str]:
    """Yield a line for each exported name, and for each of its parts."""
    for name in sorted(connection_exporter.__all__):
        thing = getattr(connection_exporter, name)
        if thing is Config:
            yield "Config"  # what load_config returns and Monitor takes; its content is not part of the interface
        elif not isinstance(thing, type):
            yield f"{name}{inspect.signature(thing)}"
        elif issubclass(thing, enum.Enum):
            yield f"{name}: {', '.join(member.value for member in thing)}"
        elif issubclass(thing, Exception):
            yield f"{name}({', '.join(base.__name__ for base in thing.__bases__)})"
        elif dataclasses.is_dataclass(thing):
            fields = ", ".join(f"{field.name}: {_name(field.type)}" for field in dataclasses.fields(thing))
            yield f"{name}({fields})"
        else:
            yield f"{name}{inspect.signature(thing)}"
            for method in METHODS:
                function = getattr(thing, method)
                prefix = "async " if inspect.iscoroutinefunction(function) else ""
                yield f"  {prefix}{method}{inspect.signature(function)}"


def _name(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def test_the_interface_is_that_of_the_golden_file() -> None:
    shown = "\n".join(interface()).replace("pathlib._local.", "pathlib.")  # where Python 3.13 keeps it
    assert shown + "\n" == GOLDEN.read_text()


def test_help_describes_every_exported_name() -> None:
    """Although each is imported only when it is used."""
    shown = pydoc.plain(pydoc.render_doc(connection_exporter))
    for name in connection_exporter.__all__:
        assert f"    class {name}(" in shown or f"    {name} = load(" in shown


async def test_a_typed_program_uses_all_of_it(tmp_path: Path) -> None:
    """`make lint` checks the types that are asserted here; this runs the same lines."""
    path = tmp_path / "c.yml"
    (tmp_path / "ours.pid").write_text(str(os.getpid()))
    path.write_text("services: {bot: {kind: process, pidfile: ours.pid}}\n")
    config = assert_type(load_config(path), Config)
    seen: list[Transition] = []

    async def on_change(change: Transition) -> None:
        assert_type(change.status, Status)
        assert_type(change.reason, Reason | None)
        assert_type(change.at, float)
        seen.append(change)

    monitor = Monitor(config)
    with pytest.raises(NotRunning, match="not running"):
        await monitor.force_check()
    async with monitor as same:
        assert_type(same, Monitor)
        unsubscribe = assert_type(monitor.add_callback(on_change), Callable[[], None])
        assert_type(monitor.add_callback(seen.append), Callable[[], None])
        await monitor.force_check("bot")
        with pytest.raises(UnknownService, match="known: bot") as unknown:
            await monitor.force_check("nope")
        assert assert_type(unknown.value.known, tuple[str, ...]) == ("bot",)
        with pytest.raises(TooSoon) as soon:
            await monitor.force_check("bot")
        assert 0 < assert_type(soon.value.retry_after, float) <= 1
        status = assert_type(monitor.status(), dict[str, Any])
        assert status["services"]["bot"]["status"] == Status.HEALTHY
        changes = await monitor.reload(config)
        assert changes.changed == ()
        unsubscribe()
    assert {change.status for change in seen} >= {"connecting", Status.HEALTHY}
    path.write_text("services: {}\n")
    with pytest.raises(ConfigError) as bad:
        load_config(str(path))
    assert len(assert_type(bad.value.lines, tuple[str, ...])) == 1


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(interface()) + "\n")
