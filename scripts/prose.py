"""Checks every text for people against the rules in styles/, which are in Vale's format. Exit status 1 if it finds any.

It reads pages (without code), and the docstrings and comments of Python files. Of Vale's rules, it knows
``substitution`` and ``occurrence`` per sentence.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
LEFT_OUT: Final = ("docs/style.md", "LICENSE.md")
"""Pages that quote what not to write."""

_CODE = re.compile(
    r"```.*?^ *```|`[^`\n]+`|<!--.*?-->|\]\([^)]*\)|https?://\S+|^\|[ \-|:]+\|$", re.MULTILINE | re.DOTALL
)
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+\.))|\|")

Text = tuple[int, str]
"""The line on which a text begins, and the text."""


def main() -> int:
    """Print each violation as ``file:line: message``, and return the exit status."""
    rules = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "styles").glob("*/*.yml"))]
    found = [
        f"{name}:{line + text.count(chr(10), 0, place)}: {problem}"
        for name, line, text in _texts()
        for place, problem in _problems(rules, text.replace("\n", " "))
    ]
    print("\n".join(found) if found else "prose: no violations")
    return bool(found)


def _texts() -> Iterator[tuple[str, int, str]]:
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/*.md"),
        *ROOT.glob(".github/**/*.md"),
    ]
    folders = ("exporter", "tests", "scripts", "benchmarks", "grafana", "alertmanager", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in sorted({*pages, *files}):
        name = str(path.relative_to(ROOT))
        if name not in LEFT_OUT:
            sentences = _of_python if path.suffix == ".py" else _of_markdown
            for line, text in sentences(path.read_text()):
                yield name, line, text


def _of_markdown(page: str) -> Iterator[Text]:
    prose = _CODE.sub(lambda code: " x " + "\n" * code[0].count("\n"), page)
    yield from _sentences(1, prose)


def _of_python(source: str) -> Iterator[Text]:
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield from _sentences(node.lineno, _CODE.sub(" x ", node.value.value.replace("``", "`")))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _sentences(line: int, prose: str) -> Iterator[Text]:
    start = 0
    for end in [*(match.start() for match in _SENTENCE_END.finditer(prose)), len(prose)]:
        yield line + prose.count("\n", 0, start), prose[start:end]
        start = end


def _problems(rules: list[dict[str, Any]], text: str) -> Iterator[tuple[int, str]]:
    """Yield where each violation is in ``text``, and the message."""
    for rule in rules:
        if rule["extends"] == "substitution":
            for pattern, better in rule["swap"].items():
                if (match := re.search(pattern, text, re.IGNORECASE)) is not None:
                    yield match.start(), rule["message"].replace("%s", better, 1).replace("%s", match[0], 1)
        elif len(re.findall(rule["token"], text)) > rule["max"]:
            yield len(text) - len(text.lstrip()), rule["message"]


if __name__ == "__main__":
    sys.exit(main())
