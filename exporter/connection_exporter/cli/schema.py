"""The command ``schema``: describes the config file as JSON Schema (draft 7), which editors of YAML understand.

The schema says what may be written, and not every rule: two keys that exclude each other are found by ``validate``.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, PydanticUserError
from pydantic.json_schema import models_json_schema

from connection_exporter.config import KindError
from connection_exporter.config.alerting import AlertingConfig
from connection_exporter.config.durations import DURATION_PATTERN, format_duration
from connection_exporter.config.reader import NAME_PATTERN
from connection_exporter.config.service import PolicyConfig
from connection_exporter.kinds.registry import find_kind, kind_names

_VARIABLE: Final = {
    "type": "string",
    "pattern": r"\$\{",
    "description": "text with an environment variable, as in ${PORT} or ${PORT:-5432}",
}
_ABOUT: Final = ("description", "default")
_LEFT_OUT: Final = (*_ABOUT, "title", "writeOnly", "gt", "ge", "lt", "le")
"""Titles repeat the key, and pydantic leaves limits of its own where the input is not a number."""


def schema_text(kinds: Iterable[str] | None = None) -> str:
    """Return the schema as JSON text, for ``kinds`` or for every kind that is installed."""
    models = _models(kind_names() if kinds is None else kinds)
    return json.dumps(config_schema(models), indent=2, ensure_ascii=False) + "\n"


def _models(names: Iterable[str]) -> dict[str, type[BaseModel]]:
    """Return the config model of each kind, but of those that cannot be described, which are reported."""
    found: dict[str, type[BaseModel]] = {}
    for name in names:
        try:
            kind = find_kind(name)
            assert kind is not None, "it is in the list of kinds"
            kind.config.model_json_schema()
            found[name] = kind.config
        except (KindError, PydanticUserError) as error:  # of a plug-in
            print(f"warning: {name} is not in the schema: {error}", file=sys.stderr)
    return found


def config_schema(kinds: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Return the schema of a config whose services are of these kinds."""
    models: list[type[BaseModel]] = [PolicyConfig, AlertingConfig, *kinds.values()]
    places, whole = models_json_schema([(model, "validation") for model in models], by_alias=True)
    definitions = {name: _readable(definition) for name, definition in whole["$defs"].items()}

    def place(model: type[BaseModel]) -> dict[str, str]:
        return {"$ref": places[model, "validation"]["$ref"]}

    service = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(kinds), "description": "what the service is"}},
        "allOf": [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": name}}},
                "then": place(model),
            }
            for name, model in kinds.items()
        ],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The config file of connection-exporter",
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": ["services"]}, {"required": ["include"]}],
        "properties": {
            "defaults": {**place(PolicyConfig), "description": "values for all services"},
            "include": {
                "description": "more files with `services`, relative to this one, as in [conf.d/*.yml]",
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "items": {"type": "string", "minLength": 1}},
                ],
            },
            "alerting": {**place(AlertingConfig), "description": "send alerts to Alertmanager directly"},
            "services": {
                "description": "the services to monitor: a name for each, and its config",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
                "additionalProperties": service,
            },
        },
        "$defs": {**definitions, "variable": _VARIABLE},
    }


def _readable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return pydantic's schema of a value as people write that value in YAML, without redundant parts."""
    about = {key: value for key, value in schema.items() if key in _ABOUT}
    # A field may be None, but nobody may write it: a key without a value is an error.
    given = [branch for branch in schema.get("anyOf", [schema]) if branch != {"type": "null"}]
    branches = [_branch(branch) for branch in given]
    if default := _default(about.pop("default", None), branches):
        about["default"] = default["value"]
    if "description" in about:
        about["description"] = _one_line(about["description"])
    if any(map(_needs_variable, branches)):
        branches.append({"$ref": "#/$defs/variable"})
    return {**about, **(branches[0] if len(branches) == 1 else {"anyOf": branches})}


def _branch(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key not in _LEFT_OUT}
    if kept.get("additionalProperties") is True:
        del kept["additionalProperties"]  # the default; not every version of pydantic writes it
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = _readable(kept[key])
    if "properties" in kept:
        kept["properties"] = {
            name: {"const": value["const"]} if name == "kind" else _readable(value)
            for name, value in kept["properties"].items()
        }
    return kept


def _default(default: object, branches: list[dict[str, Any]]) -> dict[str, object]:
    """Return ``{"value": default}`` as people write it, or nothing if there is none to show."""
    if default is None or isinstance(default, dict | list):
        return {}
    is_duration = any(DURATION_PATTERN in branch.get("pattern", "") for branch in branches)
    return {"value": format_duration(default) if is_duration and isinstance(default, float) else default}


def _needs_variable(branch: dict[str, Any]) -> bool:
    """Return whether a text with a variable in it would not be valid, although it may be written there."""
    kind = branch.get("type")
    return kind in ("integer", "number", "boolean") or (
        kind == "string" and bool({"pattern", "enum"} & branch.keys())
    )


def _one_line(docstring: str) -> str:
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("``", "`")
