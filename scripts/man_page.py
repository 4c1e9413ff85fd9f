"""Writes the man page from the parser of the command line, as roff (man(7)). `scripts/reference.py` calls it."""

import argparse
import re
from collections.abc import Iterator

from connection_exporter import __version__
from connection_exporter.cli.parser import build_parser

_AFTER = """\
.SH FILES
.TP
.I connection\\-exporter.yml
The config, if no other is named. Every key is described in docs/configuration.md and by
.BR "connection\\-exporter schema" .
.SH ENVIRONMENT
.TP
.BR DATABASE_URL ", " REDIS_URL ", " BOT_PROCESS ", " API_URL ", " WEBSOCKET_URL
Each defines a service. They are used only if no config is named and there is no
.IR connection\\-exporter.yml .
.TP
.B CONNECTION_EXPORTER_SHARD
The same as
.BR \\-\\-shard .
.TP
.B NO_COLOR
No colors in
.BR check " and " watch .
.TP
.B TERM=dumb
Plain text in
.BR check " and " watch .
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
End
.BR serve ", " demo " and " watch .
.TP
.B SIGHUP
Makes
.B serve
read the config again.
.SH SEE ALSO
.BR prometheus (1),
.BR prometheus\\-alertmanager (1),
.BR systemd.service (5)
"""


def man_page() -> str:
    """Return the whole page."""
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    lines = [
        '.\\" Made by scripts/reference.py from the parser of the command line: change that, and run it again.',
        f'.TH CONNECTION\\-EXPORTER 1 "" "connection\\-exporter {__version__}" "User Commands"',
        ".SH NAME",
        "connection\\-exporter \\- holds a live connection to everything a system depends on",
        ".SH SYNOPSIS",
        *(line for name in commands.choices for line in _synopsis(name, commands.choices[name])),
        ".SH DESCRIPTION",
        *_paragraph(parser.description or ""),
        *_examples(parser.epilog or ""),
        ".SH COMMANDS",
    ]
    for name, command in commands.choices.items():
        lines += [
            f".SS {_escaped(name)} \\- {_escaped(summaries[name])}",
            *_paragraph(command.description or ""),
        ]
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                lines += [".TP", _head(action), _escaped(_help(action))]
        lines += _examples(command.epilog or "")
    return "\n".join(lines) + "\n" + _AFTER


def _synopsis(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    flags = any(action.option_strings and action.dest != "help" for action in command._actions)
    positional = [action for action in command._actions if not action.option_strings]
    words = [f"[{_value(a)}]" if a.nargs == "?" else _value(a) for a in positional]
    rest = " ".join([*(["[options]"] if flags else []), *words])
    yield f".B connection\\-exporter {_escaped(name)}"
    yield from [_escaped(rest)] if rest else []
    yield ".br"


def _paragraph(text: str) -> Iterator[str]:
    """Yield a description. Lines that begin with spaces stay as they are."""
    for line in text.splitlines():
        yield from [".nf", _escaped(line), ".fi"] if line.startswith(" ") else [_escaped(line)]


def _examples(epilog: str) -> Iterator[str]:
    before, found, examples = epilog.partition("examples:\n")
    yield from [".PP", *_paragraph(before.strip())] if before.strip() else []
    if found:
        yield from [".PP", "Examples:", ".PP", ".nf", *map(_escaped, examples.splitlines()), ".fi"]


def _head(action: argparse.Action) -> str:
    names = ", ".join(f"\\fB{_escaped(name)}\\fR" for name in action.option_strings)
    if not names:
        return f"\\fI{_escaped(_value(action))}\\fR"
    return names if action.nargs == 0 else f"{names}=\\fI{_escaped(_value(action))}\\fR"


def _value(action: argparse.Action) -> str:
    return str(action.metavar) if action.metavar else "|".join(map(str, action.choices or [action.dest]))


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default))
    return "Print the version." if isinstance(action, argparse._VersionAction) else _sentence(text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if not text.endswith(".") else text


def _escaped(text: str) -> str:
    """Return text so that roff takes nothing in it for a request or an escape."""
    safe = re.sub(r"`([^`]*)`", r"\1", text).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
