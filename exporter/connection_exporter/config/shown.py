"""Returns a config as it may be shown: what is in force, with the defaults filled in and every secret hidden.

Besides the fields that are secrets, this hides what may be one without being declared: the query of a path, the body
of a request, a user without a password, and what looks like a token in a path or a subprotocol.
"""

from typing import Any, Final

from connection_exporter.config.load import Config
from connection_exporter.config.redact import REDACTED, Redactor
from connection_exporter.config.secret_parts import hide_parts
from connection_exporter.config.service import ServiceConfig

HIDDEN: Final = "**********"
"""As pydantic shows a secret."""

_PLAIN: Final = (
    *("kind", "host", "hosts", "database", "sslmode", "interval", "timeout"),
    *("group", "description", "links", "depends_on"),
)
"""Keys whose value is never a secret, even if a weak password happens to be the same word."""

_CONDITIONS: Final = ("json", "expect_json")
"""Keys with conditions on JSON, in which null is a value like any other."""


def shown(config: Config) -> dict[str, Any]:
    """Return the config as plain values, as they could be written in a file."""
    services = {"services": {name: _service(service) for name, service in config.services.items()}}
    if config.alerting is None:
        return services
    return {"alerting": _without_none(config.alerting.model_dump(mode="json")), **services}


def _service(service: ServiceConfig) -> dict[str, Any]:
    values: dict[str, Any] = _without_none(service.model_dump(mode="json", by_alias=True))
    for key in ("path", "subprotocols"):
        if key in values:
            values[key] = _each(values[key], lambda text: hide_parts(text, HIDDEN))
    if "oauth2" in values:
        values["oauth2"]["token_url"] = hide_parts(values["oauth2"]["token_url"], HIDDEN)
    if "body" in values:
        values["body"] = HIDDEN
    if "user" in values and "password" not in values and "password_file" not in values:
        values["user"] = HIDDEN
    for key in ("redact", "links", "depends_on"):
        if not values.get(key):
            values.pop(key, None)
    hide = Redactor(service)
    plain = {key: values.pop(key) for key in _PLAIN if key in values}
    return {**plain, **_each(values, lambda text: hide(text).replace(REDACTED, HIDDEN))}


def _each(value: Any, change: Any) -> Any:
    """Return ``value`` with ``change`` applied to every text in it that is not a key."""
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    return change(value) if isinstance(value, str) and value != HIDDEN else value


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {
            key: value if key in _CONDITIONS else _without_none(value)
            for key, value in values.items()
            if value is not None
        }
    if isinstance(values, list):
        return [_without_none(value) for value in values]
    return values
