#!/usr/bin/env python3
"""Writes what the docs take from the code; with --check, says whether it differs.

These are the tables of docs/configuration.md, docs/schema.json, and the man page docs/connection-exporter.1.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from connection_exporter.cli.schema import schema_text
from connection_exporter.config.alerting import AlertingConfig
from connection_exporter.config.durations import format_duration
from connection_exporter.config.service import PolicyConfig, ServiceConfig
from connection_exporter.config.tls import TlsConfig
from connection_exporter.kinds.http.config import Size
from connection_exporter.kinds.registry import KINDS
from man_page import man_page
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parents[1] / "docs"
_BEGIN = "<!-- table: {} -->\n"
_END = "<!-- end -->"


def main() -> int:
    """Write the files, or compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a file is not current"
    )
    check = parser.parse_args().check
    page = (DOCS / "configuration.md").read_text()
    if missing := [name for name in KINDS if _BEGIN.format(name) not in page]:
        marker = _BEGIN.format(missing[0]).strip()
        advice = f"add a section with the lines `{marker}` and `{_END}`"
        print(f"configuration.md has no table for {', '.join(missing)}: {advice}", file=sys.stderr)
        return 1
    made = {
        DOCS / "configuration.md": filled(page),
        DOCS / "schema.json": schema_text(KINDS),
        DOCS / "connection-exporter.1": man_page(),
    }
    different = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in different:
        if check:
            print(f"{path.name} is not what the code says: run scripts/reference.py", file=sys.stderr)
        else:
            path.write_text(made[path])
    return int(check and bool(different))


def filled(page: str) -> str:
    """Return the page with every generated table made anew."""
    models: dict[str, type[BaseModel]] = {
        "policy": PolicyConfig,
        "about": ServiceConfig,
        "tls": TlsConfig,
        "alerting": AlertingConfig,
    }
    models |= {name: kind.config for name, kind in KINDS.items()}
    for name, model in models.items():
        table = "\n".join(_rows(model, "", _hidden(model)))
        begin, end = _BEGIN.format(name), _END
        before, found, rest = page.partition(begin)
        if found:
            _, _, after = rest.partition(end)
            body = f"\n| key | default | meaning |\n|---|---|---|\n{table}\n\n"
            page = f"{before}{begin}{body}{end}{after}"
    return page


def _hidden(model: type[BaseModel]) -> set[str]:
    """Return the keys that need no row: those of the policy, where the kind does not change them."""
    if not issubclass(model, ServiceConfig):
        return set()
    policy = PolicyConfig.model_fields
    if model is ServiceConfig:
        return {"kind", *policy}
    return {
        *ServiceConfig.model_fields.keys() - policy.keys(),
        "redact",
        *(key for key in policy if model.model_fields[key].default == policy[key].default),
    }


def _rows(model: type[BaseModel], prefix: str, hidden: set[str], needed: str = "required") -> list[str]:
    rows = []
    for key, field in model.model_fields.items():
        if key in hidden:
            continue
        key = field.alias or key  # noqa: PLW2901 - as people write it
        inner = _model_in(field.annotation)
        if inner is TlsConfig:
            rows.append(f"| `{prefix}{key}` | none | {field.description}; see [TLS](#tls) |")
        elif inner is not None:
            within = needed if field.is_required() else f"required in `{prefix}{key}`"
            rows.extend(_rows(inner, f"{prefix}{key}.", set(), within))
        else:
            words = ", ".join(f"`{word}`" for word in _words(field.annotation))
            meaning = f"{field.description}: {words}" if words else field.description
            rows.append(f"| `{prefix}{key}` | {_default(key, field, needed)} | {meaning} |")
    return rows


def _model_in(annotation: object) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _words(annotation: Any) -> list[str]:
    """Return the words that a key takes, if it takes these alone."""
    if get_origin(annotation) is Literal:
        return [str(word).lower() if word is True else str(word) for word in get_args(annotation)]
    if get_origin(annotation) is dict:  # words in its keys and values are not those of the key itself
        return []
    return [word for part in get_args(annotation) for word in _words(part)]


def _default(key: str, field: FieldInfo, needed: str) -> str:
    default = field.default
    if default is PydanticUndefined:
        return needed
    if default is None:
        return "`off`" if key == "canary" else "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{format_duration(default)}`"
    if isinstance(default, int) and get_args(Size)[1] in field.metadata:
        return f"`{default // 1024}KiB`"
    if isinstance(default, list | dict):
        return f"`[{', '.join(map(str, default))}]`" if default else "none"
    return f"`{default}`"


if __name__ == "__main__":
    sys.exit(main())
