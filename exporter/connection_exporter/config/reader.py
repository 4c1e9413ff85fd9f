"""Turns the values of a document into models of services, and notes every error with its place."""

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from connection_exporter.config.document import NO_SPACE, Document, Path, Tree, lacks_space
from connection_exporter.config.errors import short_key
from connection_exporter.config.expand import Expanded
from connection_exporter.config.explain import explain, nearest, unknown_key, with_typed_variables
from connection_exporter.config.service import PolicyConfig, ServiceConfig
from connection_exporter.core.causes import find_cycle

if TYPE_CHECKING:
    from connection_exporter.config.alerting import AlertingConfig

_Model = TypeVar("_Model", bound=BaseModel)
NAME_PATTERN: Final = "[A-Za-z_][A-Za-z0-9_-]{0,62}"
_NAME: Final = re.compile(NAME_PATTERN)
_TOP_KEYS: Final = ("defaults", "include", "alerting", "services")
_CYCLES_SHOWN: Final = 10


EXAMPLE: Final = """\
services:
  database:     {kind: postgresql, dsn: "postgresql://user@localhost:5432/app"}
  redis:        {kind: redis, url: "redis://localhost:6379/0"}
  bot_process:  {kind: process, pidfile: /run/bot.pid}
  external_api: {kind: http, url: "https://api.example.com/health"}
  websocket:    {kind: websocket, url: "wss://stream.example.com/ws"}
"""


class KindError(Exception):
    """A kind from an installed package that cannot be used; the message names the package and the problem."""


class Kinds(Protocol):
    """The kinds that a config may name."""

    def names(self) -> list[str]:
        """Return the names of all kinds."""

    def model(self, name: str) -> type[ServiceConfig] | None:
        """Return the config model of a kind, or ``None`` if there is no such kind. Raises `KindError`."""

    def is_ours(self, name: str) -> bool:
        """Return whether the kind is part of this package, so that an unexpected error is our own bug."""


class Reader:
    """Turns plain values into models, and adds each error to `Document.mistakes`."""

    def __init__(self, document: Document, kinds: Kinds, folder: FilePath | None = None) -> None:
        self._document = document
        self._kinds = kinds
        self._folder = folder
        self._context = {"folder": folder}
        self._errors_in_defaults: set[str] = set()
        self.alerting: AlertingConfig | None = None

    def read(self, value: Tree, *, is_complete: bool = True) -> dict[str, ServiceConfig]:
        """Return the services that are valid. If services may be missing, dependencies are not checked."""
        if not isinstance(value, dict):
            empty = "the file is empty" if value is None else "expected a mapping with `services`"
            self._document.report((), f"{empty}; for example:\n{_indented(EXAMPLE)}")
            return {}
        for key in value:
            if key not in _TOP_KEYS:
                self._document.report((key,), unknown_key(key, _TOP_KEYS))
        defaults = self._defaults(value.get("defaults"))
        self.alerting = self._alerting(value.get("alerting"))
        services = value.get("services")
        if not isinstance(services, dict) or not services:
            wrong = "at least one service is needed"
            if services is not None and not isinstance(services, dict):
                wrong = "expected a mapping from names to services"
            self._document.report(("services",), f"{wrong}; for example:\n{_indented(EXAMPLE)}")
            return {}
        read = {name: self._service(name, given, defaults) for name, given in services.items()}
        valid = {name: service for name, service in read.items() if service is not None}
        if is_complete:
            self._check_dependencies(valid, list(services))
        return valid

    def _alerting(self, given: Tree) -> "AlertingConfig | None":
        if given is None:
            return None
        from connection_exporter.config.alerting import AlertingConfig  # noqa: PLC0415 - 2 ms, which most configs do without

        if not isinstance(given, dict):
            self._document.report(("alerting",), f"expected a mapping, as in {AlertingConfig.SHAPE}")
            return None
        return self._validate(AlertingConfig, given, ("alerting",))

    def _check_dependencies(self, services: Mapping[str, ServiceConfig], names: list[str]) -> None:
        """Report dependencies on what does not exist or on the service itself, and cycles."""
        known = set(names)
        graph: dict[str, list[str]] = {}
        for name, service in services.items():
            graph[name] = []
            for index, dependency in enumerate(service.depends_on):
                place = ("services", name, "depends_on", index)
                if dependency == name:
                    self._document.report(place, "a service cannot depend on itself: remove it")
                elif dependency in known:
                    graph[name].append(dependency)
                else:
                    shown = "" if isinstance(dependency, Expanded) else f" {short_key(dependency)!r}"
                    near = nearest(dependency, names)
                    hint = f"did you mean {near!r}?" if near else "write the name of a service of this config"
                    self._document.report(place, f"unknown service{shown}: {hint}")
        for _ in range(_CYCLES_SHOWN):
            cycle = find_cycle(graph)
            if cycle is None:
                return
            last, first = cycle[-2:]
            place = ("services", last, "depends_on", services[last].depends_on.index(first))
            self._document.report(
                place, f"the dependencies form a cycle, {' -> '.join(cycle)}: remove one of them"
            )
            graph[last].remove(first)

    def _defaults(self, given: Tree) -> dict[str, Tree]:
        if given is None:
            return {}
        if not isinstance(given, dict):
            self._document.report(("defaults",), "expected a mapping such as `interval: 30s`")
            return {}
        before = len(self._document.mistakes)
        self._validate(PolicyConfig, given, ("defaults",))
        mistakes = self._document.mistakes[before:]
        self._errors_in_defaults = {mistake.text for mistake in mistakes}
        wrong = {mistake.path[1] for mistake in mistakes if len(mistake.path) > 1}
        return {key: value for key, value in given.items() if key not in wrong}

    def _service(self, name: str, given: Tree, defaults: dict[str, Tree]) -> ServiceConfig | None:
        path = ("services", name)
        file = self._document.sources.get(name)
        self._context = {"folder": file.parent if file is not None else self._folder}
        if not _NAME.fullmatch(name):
            self._document.report(
                path,
                "a name begins with a letter or _ and has up to 63 letters, digits, _ and - (no dots or spaces)",
            )
        if not isinstance(given, dict):
            unspaced = isinstance(given, str) and lacks_space(given)
            self._document.report(
                path, NO_SPACE if unspaced else "expected a mapping such as `{kind: http, url: …}`"
            )
            return None
        model = self._model(given.get("kind"), path)
        if model is None:
            return None
        # Where the kind has a default of its own, such as no canary for a process, `defaults` does not apply.
        shared, own = PolicyConfig.model_fields, model.model_fields
        usable = {key: value for key, value in defaults.items() if own[key].default == shared[key].default}
        if not model.CONNECTS:
            usable.pop("ip_version", None)
        whole = {**usable, **given}
        try:
            return self._validate(model, whole, path)
        except Exception as error:
            if self._kinds.is_ours(str(given["kind"])):
                raise
            # what others wrote may fail in any way
            self._document.report(path, f"cannot be checked by its kind: unexpected {type(error).__name__}")
            return None

    def _model(self, name: Tree, path: Path) -> type[ServiceConfig] | None:
        if name is None:
            self._document.report(path, f"`kind` is missing: add one of {', '.join(self._kinds.names())}")
            return None
        try:
            model = self._kinds.model(name) if isinstance(name, str) else None
        except KindError as error:
            self._document.report((*path, "kind"), str(error))
            return None
        if model is None:
            shown = f" {name[:40]!r}" if isinstance(name, str) and not isinstance(name, Expanded) else ""
            near = nearest(name, self._kinds.names(), similarity=0.75) if isinstance(name, str) else None
            known = ", ".join(self._kinds.names())
            add = "docs/adding-a-kind.md shows how to add one"
            hint = f"did you mean {near!r}?" if near else f"the known kinds are {known}; {add}"
            self._document.report((*path, "kind"), f"unknown kind{shown}: {hint}")
        return model

    def _validate(self, model: type[_Model], given: dict[str, Tree], path: Path) -> _Model | None:
        try:
            return model.model_validate(given, context=self._context)
        except ValidationError as error:
            typed = with_typed_variables(given, error)
            if typed is not given:
                return self._validate(model, typed, path)
            for inside, text in explain(model, given, error):
                # A wrong key of `defaults` is not used here, so what is said of a key is about the service's own.
                if inside or text not in self._errors_in_defaults:
                    self._document.report((*path, *inside), text)
            return None


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines()).rstrip()
