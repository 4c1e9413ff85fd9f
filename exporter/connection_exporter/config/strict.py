"""The base of every config model: strict types, and rules about several fields that are all checked at once.

pydantic stops at the first model validator that raises, and does not run one at all after an error in a field. So a
rule is a plain function in `RULES` of its model. `Strict` runs all of them on the fields that are valid, and adds
what they find to the errors of the fields.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from connection_exporter.config.explain import nearest
from connection_exporter.config.url import URL_KEYS

Rule = Callable[[Any], str | None]
"""Takes a model and returns what is wrong with it and how to fix it. A text ``key: …`` is reported at that key."""


def at_most_one(*keys: str) -> Rule:
    """Return the rule that no two of these keys are given."""

    def rule(model: Any) -> str | None:
        given = [key for key in keys if getattr(model, key) is not None]
        return f"{given[0]} and {given[1]} are both given: keep one" if len(given) > 1 else None

    return rule


_FROM_URL: Final = frozenset(
    {*URL_KEYS, "host", "port", "user", "password", "database", "path", "sslmode", "tls"}
)
"""The fields whose values are unknown while the URL cannot be parsed."""


class UnreadableParts(ValueError):
    """Raised where only some parts of a URL cannot be used, so that errors in the others are reported as well.

    ``given`` has the parts that can, and the fields in ``unknown`` have no value.
    """

    def __init__(self, problems: Iterable[str], *, given: dict[str, Any], unknown: Iterable[str]) -> None:
        self.problems = tuple(problems)
        self.given = given
        self.unknown = frozenset(unknown)
        super().__init__("\n".join(self.problems))


_PLAIN_VALUE: Final = r"[A-Za-z0-9_./-]{1,100}"
_FIELDS_ONLY: Final = "fields_only"


class _UnknownFieldError(Exception):
    """Ends a rule that reads a field without a valid value."""


class Strict(BaseModel):
    """A model that takes no unknown key, changes no type silently and cannot be changed afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,  # most models are not used by most configs; `validate` starts in 0.83 of the time
    )

    SHAPE: ClassVar[str] = ""
    """The mapping to suggest when a single value was written; ``VALUE`` is replaced by that value."""

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {}
    """What other tools call a key, and what to write instead."""

    NULL_IS_ABSENT: ClassVar[bool] = False
    """Whether a key without a value is as good as no key. It is a mistake in our own config, where a template with an
    empty variable would otherwise turn off TLS or a token, or check localhost."""

    RULES: ClassVar[tuple[Rule, ...]] = ()
    """The rules that this class adds to those of its base classes."""

    @classmethod
    def parse_given(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Return ``given`` with its URL replaced by the parts of it. Raises ValueError, or `UnreadableParts`."""
        return given

    @classmethod
    def warn_about(cls, given: dict[str, Any]) -> Iterable[str]:  # noqa: ARG003 - for the classes that override it
        """Return a warning for each part of a valid ``given`` that is accepted and has no effect, for ``validate``."""
        return ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What `warn_about` has found."""
        found: tuple[str, ...] = self.__dict__.get("_warnings", ())
        return found

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return the model itself, which cannot change: services share the default of a field, such as `expect`."""
        del memo
        return self

    def with_warnings(self, warnings: Iterable[str]) -> Self:
        """Set `warnings` while the model is being built, and return it."""
        if found := tuple(warnings):  # most models have none, and a private attribute takes 0.2 KiB of each
            self.__dict__["_warnings"] = found
        return self

    def adjust_defaults(self) -> None:
        """Adjust fields that are not written to those that are, by `set_default`."""

    def is_written(self, key: str) -> bool:
        """Return whether the field was given, and is not a default."""
        return key in self.model_fields_set

    def set_default(self, key: str, value: object) -> None:
        """Set a field while the model is being built; afterwards it is frozen."""
        object.__setattr__(self, key, value)

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, given: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        context = info.context or {}
        if not isinstance(given, dict) or context.get(_FIELDS_ONLY):
            cls._suggest_shape(given)
            return validate(given)
        written = given
        errors: list[InitErrorDetails] = []
        unknown: set[str] = set()
        if None in given.values() and not cls.NULL_IS_ABSENT:
            unknown = {key for key, value in given.items() if value is None and key in cls.model_fields}
            errors += (_no_value(key) for key in given if key in unknown)
            given = {key: value for key, value in given.items() if key not in unknown}
            unknown |= _FROM_URL if unknown & {*URL_KEYS} else set()
        try:
            given = cls.parse_given(given)
        except UnreadableParts as error:
            errors += (_broken_rule(text, given) for text in error.problems)
            unknown, given = unknown | error.unknown, error.given
        except ValueError as error:
            errors.append(_broken_rule(str(error), given))
            unknown |= _FROM_URL
            given = {key: value for key, value in given.items() if key not in URL_KEYS}
        model: Strict | None
        try:
            model = valid = validate(given)
        except ValidationError as error:
            found = error.errors(include_url=False)
            errors += [_copy(detail) for detail in found if not _is_lost(detail, unknown)]
            unknown |= _unknown_fields(cls, errors)
            model = cls._of_valid_fields(given, unknown, context)
        if model is not None:
            model.adjust_defaults()
            errors += (_broken_rule(text, given) for text in _broken(model, unknown))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)
        object.__setattr__(valid, "__pydantic_fields_set__", _same_keys(frozenset(valid.model_fields_set)))
        return valid.with_warnings(cls.warn_about(written))

    @classmethod
    def _suggest_shape(cls, given: object) -> None:
        if cls.SHAPE and isinstance(given, str | int | float):
            plain = type(given) in (str, int) and re.fullmatch(_PLAIN_VALUE, str(given))
            shape = cls.SHAPE.replace("VALUE", str(given) if plain else "…")
            raise ValueError(f"expected a mapping, as in {shape}")

    @classmethod
    def _of_valid_fields(
        cls, given: dict[str, Any], unknown: set[str], context: dict[str, Any]
    ) -> "Strict | None":
        """Return a model without the fields in ``unknown``: of this class, or of a base if one of them is required."""
        for base in cls.__mro__:
            if issubclass(base, Strict):
                keys = base.model_fields.keys() - unknown if base is not cls else given.keys() - unknown
                try:
                    return base.model_validate(
                        {key: value for key, value in given.items() if key in keys},
                        context={**context, _FIELDS_ONLY: True},
                    )
                except ValidationError:
                    continue
        return None


@lru_cache(maxsize=256)
def _same_keys(keys: frozenset[str]) -> set[str]:
    """Return the same set for all models with these keys: one of its own takes 0.7 KiB of each service.

    Nothing changes it, because models are frozen, and pydantic copies it before it changes a copy of a model.
    """
    return set(keys)


class _Known:
    """A model as a rule sees it while the values of the fields in ``unknown`` are not valid."""

    def __init__(self, model: Strict, unknown: set[str]) -> None:
        self._model = model
        self._unknown = unknown

    def __getattr__(self, name: str) -> Any:
        if name in self._unknown:
            raise _UnknownFieldError(name)
        return getattr(self._model, name)

    def is_written(self, key: str) -> bool:
        if key in self._unknown:
            raise _UnknownFieldError(key)
        return self._model.is_written(key)


def _is_lost(detail: Any, unknown: set[str]) -> bool:
    """Return whether a required field is missing only because the URL could not be parsed."""
    return detail["type"] == "missing" and detail["loc"][0] in unknown


def _unknown_fields(model: type[Strict], errors: list[InitErrorDetails]) -> set[str]:
    """Return the fields that errors leave without a value; an unknown key may be a misspelled or renamed field."""
    keys = {str(detail["loc"][0]) for detail in errors if detail.get("loc")}
    named = {model.OTHER_NAMES.get(key) or nearest(key, model.model_fields) for key in keys}
    unknown = keys | {name for name in named if name is not None}
    return unknown | _FROM_URL if unknown & {*URL_KEYS} else unknown


def _broken(model: Strict, unknown: set[str]) -> Iterator[str]:
    """Yield the text of each rule that the model breaks, those of base classes first."""
    view = _Known(model, unknown) if unknown else model
    for base in reversed(type(model).__mro__):
        for rule in vars(base).get("RULES", ()):
            try:
                text = rule(view)
            except _UnknownFieldError:
                continue
            if text is not None:
                yield text


def _broken_rule(text: str, given: object) -> InitErrorDetails:
    return {"type": PydanticCustomError("broken_rule", "{text}", {"text": text}), "input": given}


def _copy(detail: Any) -> InitErrorDetails:
    """Return an error so that it can be raised again, with its type, message and context."""
    error = PydanticCustomError(detail["type"], detail["msg"], detail.get("ctx"))
    return {"type": error, "loc": detail["loc"], "input": detail["input"]}


def _no_value(key: str) -> InitErrorDetails:
    error = PydanticCustomError("broken_rule", "has no value: write one, or remove the key")
    return {"type": error, "loc": (key,), "input": None}
