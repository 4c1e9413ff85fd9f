"""Owns the files that a config names, as in ``password_file``: finding them, and reading a secret from one."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema

from connection_exporter.core.failure import Failure
from connection_exporter.core.health import Reason
from connection_exporter.system.files import NO_RESPONSE, read_regular_file

if TYPE_CHECKING:
    import asyncio

MAX_SECRET_BYTES: Final = 1024 * 1024
"""A password is short, but a message that a dialogue sends may be longer."""

MOST_ISSUED: Final = 8
"""Secrets that are remembered of those that a server has issued."""

Place = tuple[str | int, ...]
"""The keys and list indexes that lead to a value in a config."""


class SecretFile:
    """A file that holds a secret or a text to be sent. It is read again for each connection.

    Two of them are equal if their paths are. ``values`` holds the current and the previous content, because a
    server may still echo the previous one after a rotation.
    """

    __slots__ = ("_reading", "path", "values")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: tuple[str, ...] = ()
        self._reading: asyncio.Task[str] | None = None

    async def read(self, key: str, *, select: Callable[[str], str] = str) -> str:
        """Return the text without a byte order mark and without the line breaks at its end.

        If not all of the text is secret, ``select`` returns the part that is, which is returned. The file is read in a
        thread, because it may be on a mount that does not respond; concurrent callers share one read. Raises `Failure`
        (auth), whose message calls the file ``key``; a cancellation has one as its cause.
        """
        import asyncio  # noqa: PLC0415 - 15 ms with what it imports: `validate` reads no secrets

        from connection_exporter.system.threads import run_in_thread  # noqa: PLC0415 - as above

        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.done() or self._reading.get_loop() is not loop:
            self._reading = loop.create_task(
                run_in_thread(lambda: read_secret(self.path), name="read secret")
            )
            self._reading.add_done_callback(_retrieve)
        try:
            value = select(await asyncio.shield(self._reading))
        except (OSError, ValueError) as error:
            raise Failure(Reason.AUTH, f"{key} cannot be read: {problem_of(error)}") from error
        except asyncio.CancelledError as cancelled:
            raise cancelled from Failure(Reason.AUTH, f"{key} cannot be read: {NO_RESPONSE}")
        if value not in self.values[:1]:
            self.values = (value, *self.values[:1])
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretFile) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"SecretFile({str(self.path)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(
            lambda value, info: cls(path) if isinstance(path := relative_path(value, info), Path) else value,
            core_schema.is_instance_schema(cls),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "path"}


class IssuedSecrets:
    """Secrets that servers have issued while the exporter runs: the latest is the first. Kept by a config model.

    They are hidden as those that the config contains. All compare equal: they are no part of what was configured.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: tuple[str, ...] = ()

    def remember(self, value: str) -> None:
        """Add a secret; of more than `MOST_ISSUED`, the oldest is forgotten."""
        if value not in self.values:
            self.values = (value, *self.values[: MOST_ISSUED - 1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IssuedSecrets)

    def __hash__(self) -> int:
        return hash(IssuedSecrets)

    def __repr__(self) -> str:
        return f"IssuedSecrets({len(self.values)})"


def relative_path(value: object, info: ValidationInfo) -> object:
    """Return a text as a path, relative to the folder of the config file; anything else as it is. Raises ValueError."""
    if not isinstance(value, str) or not value:
        return value
    if "\0" in value:
        raise ValueError("a path must not contain a NUL: remove it")
    folder = (info.context or {}).get("folder")
    return Path(value) if folder is None else folder / value


FilePath = Annotated[Path, BeforeValidator(relative_path)]
"""A path, relative to the folder of the config file."""


def read_secret(path: Path) -> str:
    """Return the text of a regular file without a byte order mark and the line breaks at its end. Blocks.

    Raises OSError, also for a named pipe or a device, which might block forever, and UnicodeDecodeError.
    """
    content = read_regular_file(path, most=MAX_SECRET_BYTES)
    return content.decode("utf-8-sig").rstrip("\r\n")


def _retrieve(reading: "asyncio.Task[str]") -> None:
    """Take note of an error, which asyncio would log otherwise: all callers may have been cancelled meanwhile."""
    if not reading.cancelled():
        reading.exception()


async def read_text(model: BaseModel, key: str) -> str | None:
    """Return the text in the field ``key`` of a model, or in the file that ``key_file`` names; ``None`` without either.

    Raises `Failure` (auth) if the file cannot be read or is empty.
    """
    file = getattr(model, f"{key}_file", None)
    if isinstance(file, SecretFile):
        text = await file.read(f"{key}_file")
        if not text.strip():
            raise Failure(Reason.AUTH, f"{key}_file is empty")
        return text
    value = getattr(model, key)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def unreadable(path: Path) -> str | None:
    """Return why a file cannot be read, or None. Does not open it, because that may block."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return problem_of(error)
    if not stat.S_ISREG(mode):
        return os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "Not a regular file"
    return None if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield every value in a config model that is not a model, a list or a mapping, with its place."""
    if isinstance(value, BaseModel):
        for key, field in type(value).model_fields.items():
            yield from leaves(getattr(value, key), (*place, field.alias or key))
        for key in type(value).__private_attributes__:
            yield from leaves(getattr(value, key), (*place, key))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, (*place, index))
    else:
        yield place, value


def files_of(model: BaseModel) -> Iterator[tuple[Place, Path]]:
    """Yield the place and the path of every file that a config names: a secret, a certificate, a key."""
    for place, value in leaves(model):
        if isinstance(value, SecretFile):
            yield place, value.path
        elif isinstance(value, Path) and str(place[-1]).endswith("_file"):
            yield place, value


def problem_of(error: OSError | ValueError) -> str:
    """Return why a file could not be read, without its path or content."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "the path contains a NUL"
