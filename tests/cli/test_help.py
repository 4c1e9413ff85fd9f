"""`--help`, the man page and the completion scripts name every command and flag, and their examples can be run."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from connection_exporter.cli import main
from connection_exporter.cli.completion import completion
from connection_exporter.cli.parser import SHELLS, build_parser

ROOT = Path(__file__).resolve().parents[2]
(_COMMANDS,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
PARSERS: dict[str, argparse.ArgumentParser] = dict(_COMMANDS.choices)
EXAMPLE = re.compile(r"^ +(?:[A-Z_]+=\S+ |source <\()*connection-exporter(?P<rest>.*)$", re.MULTILINE)


Program = Callable[[str], str]


@pytest.fixture
def program() -> Program:
    """Return a function that finds a program in PATH or .tools/bin, where `make programs` puts it."""

    def find(name: str) -> str:
        search = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".tools" / "bin")])
        path = shutil.which(name, path=search)
        if path is None:
            pytest.fail(f"{name} is not here: run `make programs`")
        return path

    return find


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (flag for flag in action.option_strings if flag.startswith("--") and flag != "--help")


def test_each_command_that_can_be_parsed_can_be_run() -> None:
    """And the other way round."""
    assert set(main._COMMANDS) == set(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_each_help_has_a_description_and_examples_that_can_be_parsed(name: str) -> None:
    """On lines that fit into a terminal of 80 columns."""
    parser = PARSERS[name]
    assert parser.description
    examples = [found["rest"] for found in EXAMPLE.finditer(parser.epilog or "")]
    assert examples
    for example in examples:
        words = shlex.split(re.split(r" [|>]|\)$| \\$", example)[0], comments=True)
        if not words or words[0].startswith("-"):
            words.insert(0, "serve")
        assert build_parser().parse_args(words).command == name
    lines = f"{parser.description}\n{parser.epilog}".splitlines()
    assert max(map(len, lines)) <= 80


def test_a_config_without_a_command_is_served() -> None:
    """`connection-exporter my.yml` is what one tries first; any other word is a misspelled command."""
    assert main.belongs_to_serve("my.yml")
    assert main.belongs_to_serve("/etc/exporter/my.yaml")
    assert main.belongs_to_serve("my.json")
    assert main.belongs_to_serve("./my")
    assert main.belongs_to_serve("--log.level=debug")
    assert not main.belongs_to_serve("chekc")


def test_the_man_page_names_every_command_and_flag() -> None:
    """Another test compares the whole page with what `scripts/reference.py` writes."""
    page = (ROOT / "docs" / "connection-exporter.1").read_text().replace("\\-", "-")
    for name, parser in PARSERS.items():
        section = page.partition(f".SS {name} - ")[2].partition("\n.S")[0]
        assert section, name
        assert {flag for flag in flags(parser) if f"\\fB{flag}\\fR" not in section} == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_completion_script_names_every_command_and_flag(shell: str) -> None:
    script = completion(shell)
    for name, parser in PARSERS.items():
        assert name in script
        for flag in flags(parser):
            assert flag.removeprefix("--") in script


BASH = """
eval "$(cat)"
COMP_WORDS=(connection-exporter "$@") COMP_CWORD=$# COMPREPLY=()
$(complete -p connection-exporter | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("wat",), ["watch"]),
        (("check", "--form"), ["--format"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("validate", "my"), ["my.yml"]),
    ],
)
def test_bash_completes_commands_flags_values_and_files(
    tmp_path: Path, words: tuple[str, ...], offered: list[str]
) -> None:
    """With bash itself, as after Tab."""
    (tmp_path / "my.yml").touch()
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", *words],
        input=completion("bash"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
    )
    assert set(offered) <= set(done.stdout.split()), done


def test_fish_completes_commands_and_flags(tmp_path: Path, program: Program) -> None:
    """With fish itself, as after Tab."""
    script = tmp_path / "connection-exporter.fish"
    script.write_text(completion("fish"))
    for typed, offered in (("wat", "watch"), ("check --form", "--format")):
        command = f"source {script}; complete -C 'connection-exporter {typed}'"
        done = subprocess.run(
            [program("fish"), "--no-config", "-c", command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        assert offered in done.stdout.split(), done


def test_zsh_can_read_its_script(tmp_path: Path, program: Program) -> None:
    """zsh itself finds no syntax error."""
    script = tmp_path / "_connection-exporter"
    script.write_text(completion("zsh"))
    done = subprocess.run(
        [program("zsh"), "-fn", str(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_scripts_come_from_the_program(tmp_path: Path) -> None:
    """`connection-exporter completion bash` prints what is tested here."""
    done = subprocess.run(
        [sys.executable, "-m", "connection_exporter", "completion", "bash"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == completion("bash").strip()


@pytest.mark.parametrize("command", _COMMANDS.choices)
def test_a_parser_of_one_command_has_the_same_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is built without the other commands, to start sooner."""
    shown = []
    for parser in (build_parser(), build_parser(command)):
        with pytest.raises(SystemExit):
            parser.parse_args([command, "--help"])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "usage: connection-exporter " + command in shown[0]
