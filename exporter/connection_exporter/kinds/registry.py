"""The registry of kinds: which config model and which check belong to each name.

Our kinds and those of other packages are values of one type, `Kind`. A check is named by its module and class, and is
imported only when a service of its kind is in use. Other packages name their `Kind` in the entry-point group
``connection_exporter.kinds``.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from connection_exporter.config import KindError
from connection_exporter.config.service import ServiceConfig
from connection_exporter.core.retry import Fault

if TYPE_CHECKING:
    from connection_exporter.kind import Check, Service
    from connection_exporter.net import Network

ENTRY_POINTS: Final = "connection_exporter.kinds"


class Kind(NamedTuple):
    """A kind: its config model, and where its check class is, as ``module:Class``.

    The module of the config model must not import the driver, because every command reads the config.
    """

    config: type[ServiceConfig]
    check: str

    def load(self) -> type:
        """Import and return the check class."""
        module, _, name = self.check.partition(":")
        return cast("type", getattr(import_module(module), name))


_CLASSES: Final = {
    "postgresql": ("PostgresqlConfig", "PostgresqlCheck"),
    "redis": ("RedisConfig", "RedisCheck"),
    "process": ("ProcessConfig", "ProcessCheck"),
    "http": ("HttpConfig", "HttpCheck"),
    "websocket": ("WebsocketConfig", "WebsocketCheck"),
    "tcp": ("TcpConfig", "TcpCheck"),
    "heartbeat": ("HeartbeatConfig", "HeartbeatCheck"),
}
"""The config model and the check of each kind, in ``config.py`` and ``check.py`` of its folder."""


class _OwnKinds(Mapping[str, Kind]):
    """The kinds of this package. A config model is imported at its first use: each takes 1 to 5 ms."""

    def __getitem__(self, name: str) -> Kind:
        return _own_kind(name, *_CLASSES[name])

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES


@cache
def _own_kind(name: str, config: str, check: str) -> Kind:
    folder = f"connection_exporter.kinds.{name}"
    return Kind(getattr(import_module(f"{folder}.config"), config), f"{folder}.check:{check}")


KINDS: Final[Mapping[str, Kind]] = _OwnKinds()


def find_kind(name: str) -> Kind | None:
    """Return the kind called ``name``: ours, or that of an installed package, whose `Kind` is then imported.

    Raises `KindError` when that package is broken.
    """
    if name in KINDS:
        return KINDS[name]
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return _kind_of(entry)
    return None


def _kind_of(entry: EntryPoint) -> Kind:
    """Import what an entry point names; the code of other packages may fail in any way."""
    package = entry.dist.name if entry.dist else entry.module
    try:
        kind = entry.load()
    except (Exception, SystemExit) as error:
        problem = f"kind {entry.name!r} of {package} cannot be imported: {type(error).__name__}: {error}"
        raise KindError(problem) from error
    if not isinstance(kind, Kind):
        raise KindError(f"kind {entry.name!r} of {package} is broken: {entry.value} is not a Kind")
    if not (isinstance(kind.config, type) and issubclass(kind.config, ServiceConfig)):
        raise KindError(f"kind {entry.name!r} of {package} is broken: its config is not a ServiceConfig")
    return kind


def kind_names() -> list[str]:
    """Return the names of all kinds that can be configured here."""
    return [*KINDS, *sorted(entry_points(group=ENTRY_POINTS).names - KINDS.keys())]


class Registry:
    """The kinds as `connection_exporter.config` needs them: names, and the config model of each."""

    def names(self) -> list[str]:
        """Return the names of all kinds that can be configured here."""
        return kind_names()

    def model(self, name: str) -> type[ServiceConfig] | None:
        """Return the config model of a kind, or ``None`` if there is no such kind. Raises `KindError`."""
        kind = find_kind(name)
        return kind.config if kind is not None else None

    def is_ours(self, name: str) -> bool:
        """Return whether the kind is part of this package, so that an unexpected error is our own bug."""
        return name in KINDS


def build(services: Mapping[str, ServiceConfig], network: "Network") -> "list[Service]":
    """Build the services of a config, each with the check of its kind, whose driver is imported only now."""
    return [_service(name, config, network) for name, config in services.items()]


def _service(name: str, config: ServiceConfig, network: "Network") -> "Service":
    from connection_exporter.config.redact import Redactor  # noqa: PLC0415 - 5 ms: `validate` hides nothing
    from connection_exporter.kind import Service  # noqa: PLC0415 - 5 ms, as above

    check: Check = check_class(config.kind)(config, network.with_ip_version(config.ip_version))
    return Service(name, config.kind, check, config.policy, Redactor(config), config.about)


def outlook(name: str, config: ServiceConfig) -> tuple[str, Mapping[Fault, float]]:
    """Return the address of a service, and the seconds within which each fault is noticed.

    Our configs know both, so that no check, driver or event loop is imported. Those of other packages ask their check.
    """
    if config.kind in KINDS:
        return config.where, config.detection_bounds
    from connection_exporter.net import Network  # noqa: PLC0415 - 25 ms, as above

    service = _service(name, config, Network())
    return service.address, service.detection_bounds


def check_class(name: str) -> type:
    """Return the check class of a kind. The first call imports its driver, which takes up to 0.1 s."""
    kind = find_kind(name)
    assert kind is not None, "the config was validated against the same registry"
    return kind.load()
