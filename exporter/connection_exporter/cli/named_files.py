"""Finds the files that a config names and that cannot be used. Imports ssl only if there are any for TLS."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from connection_exporter.config import Config
from connection_exporter.config.document import Mistake
from connection_exporter.config.secret import Place, files_of, unreadable
from connection_exporter.config.tls import TlsConfig

if TYPE_CHECKING:
    from connection_exporter.net.tls_context import UnusableFile
    from connection_exporter.net.tls_options import TlsOptions

_OF_TLS: Final = ("ca_file", "cert_file", "key_file", "key_password_file")


def unusable_files(config: Config) -> Iterator[tuple[Mistake, Path]]:
    """Yield what is wrong with each file that cannot be used now, and the file. Blocks.

    The contents of secrets are not looked at: they are read again for each connection.
    """
    models: dict[Place, BaseModel] = {
        ("services", name): service for name, service in config.services.items()
    }
    if config.alerting is not None:
        models["alerting",] = config.alerting
    known: dict[TlsOptions, list[UnusableFile]] = {}
    for above, model in models.items():
        files = dict(files_of(model))
        absent = {
            place: problem for place, path in files.items() if (problem := unreadable(path)) is not None
        }
        for place, problem in absent.items():
            text = f"{files[place]} cannot be read: {problem.lower()}"
            yield config.mistake((*above, *place), text), files[place]
        for inside, options in _tls_options(model, files.keys() - absent.keys()):
            for unusable in _unusable(options, known):
                place = (*inside, unusable.key)
                text = unusable.message.removeprefix(f"{unusable.key} ")
                yield config.mistake((*above, *place), text), files[place]


def _tls_options(model: BaseModel, places: Iterable[Place]) -> "Iterator[tuple[Place, TlsOptions]]":
    """Yield each TLS config that names any file at ``places``, with its own place."""
    for inside in dict.fromkeys(place[:-1] for place in sorted(places, key=str) if place[-1] in _OF_TLS):
        tls: Any = model
        for part in inside:
            tls = getattr(tls, str(part)) if isinstance(tls, BaseModel) else tls[part]
        if isinstance(tls, TlsConfig) and all(
            (*inside, key) in places for key in _OF_TLS if getattr(tls, key)
        ):
            yield inside, tls.options


def _unusable(
    options: "TlsOptions", known: "dict[TlsOptions, list[UnusableFile]]"
) -> "Iterator[UnusableFile]":
    """Yield what is wrong with the files of TLS. Each side's are looked at once for all services that share them."""
    authorities = replace(options, cert_file=None, key_file=None, key_password=None, key_password_file=None)
    for part in (authorities, replace(options, ca_file=None)):
        if part not in known:
            from connection_exporter.net import tls_context  # noqa: PLC0415 - 5 ms, with ssl

            known[part] = tls_context.unusable_files(part)
        yield from known[part]
