"""The rules of cause and effect: which dependencies explain that a service is not healthy.

No clock and no I/O. Everything is defined for any input: unknown names and the edges of a cycle, which a valid config
does not contain, are ignored.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush


class Causes:
    """The causes of every service, kept current while services become faulty and recover.

    ``depends_on`` maps each service to the services that it depends on directly. A service is faulty while its status
    is known and not healthy. Its causes are the faulty services among its direct and transitive dependencies that have
    no faulty dependency of their own.

    A change costs time only for the services that depend on the changed one, and only as far as it reaches: 2 us for
    each. There is no table of all transitive dependencies: a long chain would make it huge.
    """

    def __init__(self, depends_on: Mapping[str, Iterable[str]]) -> None:
        self._direct = {
            name: tuple(dict.fromkeys(d for d in given if d in depends_on))
            for name, given in depends_on.items()
        }
        self._place = {name: place for place, name in enumerate(depends_on)}
        self._rank = {name: rank for rank, name in enumerate(_dependencies_first(self._direct))}
        for name, direct in self._direct.items():  # only the edge of a cycle leads to a later service
            self._direct[name] = tuple(d for d in direct if self._rank[d] < self._rank[name])
        self._dependents: dict[str, list[str]] = {}
        for name, direct in self._direct.items():
            for dependency in direct:
                self._dependents.setdefault(dependency, []).append(name)
        self._faulty: set[str] = set()
        # for each service, the causes that its direct dependencies have or are, and how many dependencies give each
        self._below: dict[str, dict[str, int]] = {}

    def causes(self, name: str) -> tuple[str, ...]:
        """Return the causes of a service in the order of the config. A service that is not faulty has none."""
        if name not in self._faulty:
            return ()
        return tuple(sorted(self._below.get(name, ()), key=self._place.__getitem__))

    def has_cause(self, name: str) -> bool:
        """Return whether a service is faulty and has a cause."""
        return name in self._faulty and bool(self._below.get(name))

    def is_unexplained(self, name: str) -> bool:
        """Return whether a service is faulty and has no cause."""
        return name in self._faulty and not self._below.get(name)

    def is_caused_by(self, name: str, cause: str) -> bool:
        """Return whether ``cause`` is one of the causes of a service."""
        return name in self._faulty and cause in self._below.get(name, ())

    def dependencies(self, name: str) -> list[str]:
        """Return the direct and transitive dependencies of a service, the nearest first."""
        return _reachable(name, self._direct)

    def dependents(self, name: str) -> list[str]:
        """Return the services that depend on a service directly or through others, the nearest first."""
        return _reachable(name, self._dependents)

    def update(self, name: str, *, is_faulty: bool) -> list[str]:
        """Note whether a service is faulty now. Return the services whose causes have changed, it included."""
        if name not in self._direct or is_faulty == (name in self._faulty):
            return []
        (self._faulty.add if is_faulty else self._faulty.remove)(name)
        if self._below.get(name):
            return [name]  # those above have its causes in any case
        if name not in self._dependents:
            return []
        changed: list[str] = []
        pending = _Pending(self._rank, self._dependents)
        pending.add_for_dependents_of(name, () if is_faulty else (name,), (name,) if is_faulty else ())
        while pending:
            service, change = pending.pop()
            was_explained = bool(self._below.get(service))
            gone, new = self._apply(service, change)
            if not gone and not new:
                continue
            if service in self._faulty:
                changed.append(service)
                if not was_explained:
                    gone.append(service)  # it was a cause itself
                elif not self._below[service]:
                    new.append(service)
            pending.add_for_dependents_of(service, gone, new)
        return changed

    def _apply(self, service: str, change: Mapping[str, int]) -> tuple[list[str], list[str]]:
        """Add up what has changed below a service. Return the causes that are gone, and those that are new."""
        below = self._below.setdefault(service, {})
        gone: list[str] = []
        new: list[str] = []
        for cause, difference in change.items():
            before = below.get(cause, 0)
            if before + difference:
                below[cause] = before + difference
                new += [] if before else [cause]
            elif before:
                del below[cause]
                gone.append(cause)
        return gone, new


class _Pending:
    """Changes of causes that dependents have to take in, dependencies first, so that each is visited once."""

    def __init__(self, rank: Mapping[str, int], dependents: Mapping[str, Iterable[str]]) -> None:
        self._rank = rank
        self._dependents = dependents
        self._queue: list[tuple[int, str]] = []
        self._changes: dict[str, dict[str, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add_for_dependents_of(self, service: str, gone: Iterable[str], new: Iterable[str]) -> None:
        for dependent in self._dependents.get(service, ()):
            change = self._changes.get(dependent)
            if change is None:
                change = self._changes[dependent] = {}
                heappush(self._queue, (self._rank[dependent], dependent))
            for cause in gone:
                change[cause] = change.get(cause, 0) - 1
            for cause in new:
                change[cause] = change.get(cause, 0) + 1

    def pop(self) -> tuple[str, dict[str, int]]:
        _, service = heappop(self._queue)
        return service, self._changes.pop(service)


def find_cycle(depends_on: Mapping[str, Iterable[str]]) -> tuple[str, ...] | None:
    """Return the path of a dependency cycle, with its first service repeated at the end, or ``None``."""
    finished: set[str] = set()
    for start in depends_on:
        path: dict[str, Iterator[str]] = {} if start in finished else {start: iter(depends_on[start])}
        while path:
            name = next(reversed(path))
            following = next(path[name], None)
            if following is None:
                del path[name]
                finished.add(name)
            elif following in path:
                names = list(path)
                return (*names[names.index(following) :], following)
            elif following in depends_on and following not in finished:
                path[following] = iter(depends_on[following])
    return None


def _dependencies_first(direct: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the services in an order in which each comes after its dependencies, except within a cycle."""
    order: dict[str, None] = {}
    for start in direct:
        path: dict[str, Iterator[str]] = {} if start in order else {start: iter(direct[start])}
        while path:
            name = next(reversed(path))
            following = next((d for d in path[name] if d not in order and d not in path), None)
            if following is None:
                del path[name]
                order[name] = None
            else:
                path[following] = iter(direct[following])
    return list(order)


def _reachable(start: str, edges: Mapping[str, Iterable[str]]) -> list[str]:
    if not edges.get(start):  # 0.2 us instead of 1.2 for most services, of which 1,000 may be lost together
        return []
    found: dict[str, None] = {}
    nearest = [start]
    while nearest:
        further = dict.fromkeys(there for here in nearest for there in edges.get(here, ()))
        nearest = [name for name in further if name not in found and name != start]
        found |= dict.fromkeys(nearest)
    return list(found)
