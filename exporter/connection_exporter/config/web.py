"""Owns reading ``--web.config.file``: TLS, passwords and headers of our own listener.

What the file says is done, or named in `WebConfig.notes`, or refused. Paths are relative to the file, and
``${VAR}`` is not expanded, for bcrypt hashes are full of dollar signs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from connection_exporter.config.document import Document, Mistake, Tree, parse
from connection_exporter.config.errors import ConfigError, read_text
from connection_exporter.config.explain import explain

if TYPE_CHECKING:
    import ssl

    from connection_exporter.config.web_file import RateLimit, WebFile


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What is in force at our own listener. ``notes`` say what the file asks for and will not get.

    ``open_paths`` need no password. ``files`` are all whose content matters: a change in one means that this has to be
    read again.
    """

    context: "ssl.SSLContext | None" = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: "RateLimit | None" = None
    open_paths: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def load_web(path: Path) -> WebConfig:
    """Read a web config file and the certificates that it names. Raises `ConfigError`, with every mistake.

    Takes tens of milliseconds where there is TLS.
    """
    from connection_exporter.net.server_context import (  # noqa: PLC0415 - 1 ms, as below
        UnusablePem,
        server_context,
    )

    document = parse(read_text(path), as_go=True)
    given = {} if document.value is None else document.value
    if not isinstance(given, dict):
        document.mistakes.append(Mistake(1, (), "expected a mapping with `tls_server_config`"))
    read = _validated(document, given) if isinstance(given, dict) else None
    if document.mistakes or read is None:
        raise ConfigError(str(path), document.mistakes)
    tls = read.tls
    try:
        context = server_context(tls.options(path.parent)) if tls else None
    except UnusablePem as error:
        assert tls is not None, "it is what cannot be used"
        key = tls.written_as(error.key)
        raise ConfigError(str(path), [document.mistake(("tls_server_config", key), str(error))]) from None
    except (OSError, ValueError) as error:
        where = ("tls_server_config",)
        raise ConfigError(str(path), [document.mistake(where, _told(error))]) from None
    return WebConfig(
        context,
        {user: secret.get_secret_value() for user, secret in read.basic_auth_users.items()},
        read.http_server_config.headers.in_force,
        read.rate_limit.in_force,
        frozenset(read.auth_excluded_paths),
        tuple(read.notes),
        (path, *(tls.files(path.parent) if tls else ())),
    )


def _validated(document: Document, given: dict[str, Tree]) -> "WebFile | None":
    from connection_exporter.config.web_file import WebFile  # noqa: PLC0415 - 10 ms, which most configs do without

    try:
        return WebFile.model_validate(given)
    except ValidationError as error:
        for where, text in explain(WebFile, given, error):
            document.report(where, text)
        return None


def _told(error: Exception) -> str:
    import ssl  # noqa: PLC0415 - 3 ms, which most commands do without

    if isinstance(error, ssl.SSLError):
        said = error.reason or error.strerror or error.args[0]
        return f"the certificates cannot be used: expected PEM, and a key that fits the certificate: {said}"
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'} cannot be read: {(error.strerror or '').lower()}"
    return str(error)
