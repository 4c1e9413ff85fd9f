"""What an HTTP request is authenticated with, for kinds and alerting, and header values that a file may contain."""

import re
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, SecretStr, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from connection_exporter.config.secret import SecretFile, read_text, relative_path
from connection_exporter.config.service import Login
from connection_exporter.config.strict import Rule
from connection_exporter.core.failure import Failure
from connection_exporter.core.health import Reason

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_WAYS: Final = ("user", "user_file", "bearer_token", "bearer_token_file", "oauth2")


def _header_value(value: object, info: ValidationInfo) -> SecretStr | SecretFile:
    """Take text, or ``{file: PATH}``. Raises ValueError."""
    if isinstance(value, SecretStr | SecretFile):
        return value
    if isinstance(value, dict) and set(value) == {"file"}:
        path = relative_path(value["file"], info)
        if isinstance(path, Path):
            return SecretFile(path)
    if not isinstance(value, str):
        raise ValueError("expected text: put it in quotes, or write {file: PATH}")
    if CONTROL.search(value):
        raise ValueError("a header cannot contain a line break or another control character")
    return SecretStr(value)


def _shown(value: SecretStr | SecretFile) -> str | dict[str, str]:
    return {"file": str(value)} if isinstance(value, SecretFile) else str(value)


class _AsHeader:
    """Has pydantic read and write a header. `PlainSerializer` would be the only use of a module of 3 ms."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            _header_value,
            serialization=core_schema.plain_serializer_function_ser_schema(_shown, when_used="json"),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "string", "format": "password", "writeOnly": True},
                {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "path"}},
                    "required": ["file"],
                    "additionalProperties": False,
                },
            ]
        }


HeaderValue = Annotated[SecretStr | SecretFile, _AsHeader()]
"""The value of a header: text, or ``{file: PATH}``, which is read again for each request."""


async def read_header(name: str, value: SecretStr | SecretFile) -> str:
    """Return the value of a header. Raises `Failure` (auth) if its file cannot be read or does not fit in a header."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return _one_line(f"headers.{name}", (await value.read(f"headers.{name}")).strip())


def _one_login(config: "HttpLogin") -> str | None:
    ways = [key for key in _WAYS if getattr(config, key, None) is not None]
    if any(name.lower() == "authorization" for name in getattr(config, "headers", ())):
        ways.append("headers.Authorization")
    return f"{ways[0]} and {ways[1]} are both given: keep one" if len(ways) > 1 else None


def password_has_a_user(config: Login) -> str | None:
    """Report a password whose user is neither given nor in a file."""
    password = config.password is not None or config.password_file is not None
    user = config.user is not None or getattr(config, "user_file", None) is not None
    return "a password needs a user: add `user`" if password and not user else None


def user_has_no_colon(config: Login) -> str | None:
    """Report a user that Basic authentication cannot express (RFC 7617, section 2)."""
    return (
        "user: must not contain a colon, which separates it from the password"
        if config.user is not None and ":" in config.user
        else None
    )


class HttpLogin(Login):
    """Basic authentication or a bearer token. Files are read again for each request."""

    RULES: ClassVar[tuple[Rule, ...]] = (_one_login, password_has_a_user, user_has_no_colon)

    user_file: SecretFile | None = Field(None, description="file that contains the user")
    bearer_token: SecretStr | None = Field(None, description="bearer token; better in `bearer_token_file`")
    bearer_token_file: SecretFile | None = Field(None, description="file that contains the bearer token")

    async def authorization(self) -> str | None:
        """Return the value of the Authorization header, or ``None`` (RFC 7617, RFC 6750).

        Raises `Failure` (auth) if a file cannot be read, is empty, or contains what does not fit in a header.
        """
        token = await read_text(self, "bearer_token")
        if token is not None:
            return f"Bearer {_one_line('bearer_token', token.strip())}"
        return await basic_authorization(self)


async def basic_authorization(login: Any) -> str | None:
    """Return the value of an Authorization header for the user and password of a model, or ``None`` without a user.

    Raises `Failure` (auth) if a file cannot be read or is empty.
    """
    user = await read_text(login, "user")
    if user is None:
        return None
    password = await read_text(login, "password") or ""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _one_line(key: str, text: str) -> str:
    if CONTROL.search(text):
        raise Failure(Reason.AUTH, f"{key} contains a line break or another control character")
    return text
