"""Owns `include`: finds the files, and adds their services to the document that includes them.

An included file has `services` and nothing else, so it cannot include more. After the merge, everything is checked as
if it were one file, except that errors and relative paths know the file of each service.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from glob import escape, glob
from pathlib import Path as FilePath
from typing import Final

from connection_exporter.config.document import Document, Mistake, Tree, parse
from connection_exporter.config.errors import ConfigError, read_text
from connection_exporter.config.expand import expand

MOST_FILES: Final = 1000

_MAGIC: Final = frozenset("*?[")


def patterns_of(value: Tree, folder: FilePath, document: Document) -> tuple[str, ...]:
    """Return the patterns of `include` below ``folder``, and add what is wrong with them to the document."""
    given = value.get("include") if isinstance(value, dict) else None
    if given is None:
        return ()
    written = [given] if isinstance(given, str) else given
    if not isinstance(written, list) or not all(isinstance(pattern, str) and pattern for pattern in written):
        problem = "expected a list of files or patterns, as in [conf.d/*.yml]"
        document.report(("include",), problem)
        return ()
    base = FilePath(escape(str(folder)))
    patterns = tuple(str(base / str(pattern)) for pattern in written)
    for index, pattern in enumerate(patterns):
        if not _MAGIC & set(str(written[index])) and not matching([pattern]):
            place = ("include", index) if isinstance(given, list) else ("include",)
            path = folder / str(written[index])
            problem = (
                "is a folder: add a pattern, as in /*.yml" if path.is_dir() else f"there is no file {path}"
            )
            document.report(place, problem)
    return patterns


def unmatched(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return a warning for each pattern that matches nothing: it may be misspelled. Blocks."""
    return tuple(f"include: no file matches {pattern}" for pattern in patterns if not matching([pattern]))


def matching(patterns: Iterable[str], *, but: FilePath | None = None) -> tuple[FilePath, ...]:
    """Return the files that match, but not ``but``, those of each pattern in alphabetical order, each once. Blocks."""
    found: dict[FilePath, None] = {}
    for pattern in patterns:
        for path in map(FilePath, sorted(glob(pattern))):  # noqa: PTH207 - a pattern may be absolute
            with suppress(OSError):  # it has just gone
                if path.is_file() and (but is None or not path.samefile(but)):
                    found[path] = None
    return tuple(found)


def merge(
    document: Document,
    value: Tree,
    files: Sequence[FilePath],
    *,
    source: str,
    environ: Mapping[str, str],
) -> Tree:
    """Return ``value`` with the services of ``files``, whose lines and errors are added to ``document``."""
    if len(files) > MOST_FILES:
        problem = f"{len(files)} files match, and {MOST_FILES} are allowed: write narrower patterns"
        document.report(("include",), problem)
        return value
    own = value.get("services") if isinstance(value, dict) else None
    services: dict[str, Tree] = dict(own) if isinstance(own, dict) else {}
    for file in files:
        part = _parsed(file)
        given = expand(part, environ)
        document.mistakes += (mistake._replace(source=str(file)) for mistake in part.mistakes)
        document.mistakes += (m._replace(source=str(file)) for m in _misplaced(part, given, source))
        added = given.get("services") if isinstance(given, dict) else None
        for name, service in added.items() if isinstance(added, dict) else ():
            if name in services:
                document.mistakes.append(_duplicate(document, part, name, file=file, source=source))
                continue
            services[name] = service
            document.sources[name] = file
            document.lines |= {path: line for path, line in part.lines.items() if path[1:2] == (name,)}
    if isinstance(value, dict) and (isinstance(own, dict) or (own is None and services)):
        return {**value, "services": services}
    return value


def _parsed(file: FilePath) -> Document:
    try:
        return parse(read_text(file))
    except ConfigError as error:
        return Document(mistakes=list(error.mistakes))


def _misplaced(part: Document, given: Tree, source: str) -> Iterator[Mistake]:
    """Yield a mistake for everything in an included file that is not a service."""
    if given is None:
        return
    if not isinstance(given, dict):
        yield Mistake(1, (), "expected a mapping with `services`")
        return
    for key, value in given.items():
        if key != "services":
            problem = f"an included file has only `services`: move this to {source}"
            yield part.mistake((key,), problem)
        elif value is not None and not isinstance(value, dict):
            yield part.mistake((key,), "expected a mapping from names to services")


def _duplicate(document: Document, part: Document, name: str, *, file: FilePath, source: str) -> Mistake:
    place = ("services", name)
    first = f"{document.sources.get(name, source)}:{document.line_of(place)}"
    problem = f"this name is also in {first}: rename one of the two services"
    return Mistake(part.line_of(place), place, problem, source=str(file))
