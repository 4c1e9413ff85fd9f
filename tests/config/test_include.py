"""`include`: services from more files, and errors that name the right file and line."""

from pathlib import Path

import pytest
from connection_exporter.config import Config, ConfigError
from connection_exporter.kinds import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, so that messages show short paths."""
    (tmp_path / "conf.d").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> None:
    Path(name).write_text(text)


def read(text: str, **environ: str) -> Config:
    write("main.yml", text)
    return load("main.yml", environ)


def refusal(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    return str(caught.value).splitlines()


MAIN = "include: [conf.d/*.yml]\ndefaults: {interval: 20s}\nservices:\n  first: {kind: process, name: a}\n"


@pytest.mark.usefixtures("folder")
def test_services_of_all_files_are_one_config() -> None:
    """With the defaults of the main file; those of each file in order, and files in alphabetical order."""
    write("conf.d/b.yml", "services:\n  third: {kind: process, name: c}\n")
    write("conf.d/a.yml", "services:\n  second: {kind: process, name: '${NAME}', interval: 10s}\n")
    write("conf.d/.hidden.yml", "services: {hidden: {kind: nonsense}}")
    write("conf.d/c.yaml", "services: {other: {kind: nonsense}}")
    made = read(MAIN, NAME="b")
    assert list(made.services) == ["first", "second", "third"]
    assert [service.interval for service in made.services.values()] == [20, 10, 20]
    assert made.files == (Path("conf.d/a.yml"), Path("conf.d/b.yml"))


@pytest.mark.usefixtures("folder")
def test_the_main_file_needs_no_services_of_its_own() -> None:
    """And an included file may be empty."""
    write("conf.d/a.yml", "services: {a: {kind: process, name: a}}")
    write("conf.d/b.yml", "# none yet\n")
    write("conf.d/c.yml", "services:\n")
    assert list(read("include: conf.d/*.yml\n").services) == ["a"]


@pytest.mark.usefixtures("folder")
def test_no_service_at_all_is_an_error() -> None:
    """As in a single file."""
    assert (
        "main.yml:1: services: at least one service is needed; for example:"
        in refusal("include: [conf.d/*.yml]\n")[0]
    )


@pytest.mark.usefixtures("folder")
def test_dependencies_work_across_files() -> None:
    """In both directions; what is wrong is reported where it is written."""
    write("conf.d/a.yml", "services:\n  second:\n    kind: process\n    name: b\n    depends_on: [first]\n")
    assert read(MAIN).services["second"].depends_on == ["first"]
    cyclic = MAIN.replace("name: a", "name: a, depends_on: [second]")
    [cycle] = refusal(cyclic)
    assert "the dependencies form a cycle" in cycle
    write("conf.d/a.yml", "services:\n  second:\n    kind: process\n    name: b\n    depends_on: [frist]\n")
    [unknown] = refusal(MAIN)
    assert (
        unknown
        == "conf.d/a.yml:5: services.second.depends_on[0]: unknown service 'frist': did you mean 'first'?"
    )


@pytest.mark.usefixtures("folder")
def test_a_duplicate_name_gives_both_places() -> None:
    """In the main file and an included one, and in two included ones."""
    write(
        "conf.d/a.yml", "services:\n\n  first: {kind: process, name: b}\n  other: {kind: process, name: b}\n"
    )
    write("conf.d/b.yml", "services:\n  other: {kind: process, name: b}\n")
    assert refusal(MAIN) == [
        "conf.d/a.yml:3: services.first: this name is also in main.yml:4: rename one of the two services",
        "conf.d/b.yml:2: services.other: this name is also in conf.d/a.yml:4: rename one of the two services",
    ]


@pytest.mark.usefixtures("folder")
def test_every_error_names_its_file_and_line() -> None:
    """All are reported together, those of the main file first."""
    write(
        "conf.d/a.yml",
        "services:\n  a:\n    kind: process\n    nam: x\n  b: {kind: process, name: '${NONE}'}\n",
    )
    write("conf.d/b.yml", "services:\n  c: {kind: process\n")
    write("conf.d/c.yml", "- a\n")
    write("conf.d/d.yml", "defaults: {interval: 1s}\ninclude: [../main.yml]\nservices: [a]\n")
    Path("conf.d/e.yml").write_bytes(b"a: b\n\xff")
    lines = refusal(MAIN.replace("name: a", "nme: a"))
    assert [line.split(": ", 1)[0] for line in lines] == [
        "main.yml:4",
        "conf.d/a.yml:4",
        "conf.d/a.yml:5",
        "conf.d/b.yml:3",
        "conf.d/c.yml:1",
        "conf.d/d.yml:1",
        "conf.d/d.yml:2",
        "conf.d/d.yml:3",
        "conf.d/e.yml:2",
    ]
    assert "conf.d/a.yml:4: services.a.nam: unknown key; did you mean 'name'?" in lines
    assert "conf.d/d.yml:2: include: an included file has only `services`: move this to main.yml" in lines


@pytest.mark.usefixtures("folder")
def test_a_missing_service_in_a_broken_file_is_no_second_error() -> None:
    """Dependencies are checked when all files can be read."""
    write("conf.d/a.yml", "services:\n  second: {kind: process\n")
    lines = refusal(MAIN.replace("name: a", "name: a, depends_on: [second]"))
    assert [line.split(":")[0] for line in lines] == ["conf.d/a.yml"]


def test_relative_paths_are_relative_to_the_file_that_names_them(folder: Path) -> None:
    """Of each file."""
    write("conf.d/a.yml", "services: {b: {kind: process, pidfile: b.pid}}")
    made = read("include: [conf.d/a.yml]\nservices: {a: {kind: process, pidfile: a.pid}}")
    assert [getattr(service, "pidfile", None) for service in made.services.values()] == [
        Path("a.pid"),
        Path("conf.d/b.pid"),
    ]
    absolute = read(f"include: ['{folder}/conf.d/*.yml']\nservices: {{a: {{kind: process, pidfile: a.pid}}}}")
    assert getattr(absolute.services["b"], "pidfile", None) == folder / "conf.d/b.pid"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("include", "reported"),
    [
        ("none.yml", "main.yml:1: include: there is no file none.yml"),
        ("[conf.d/*.yml, none.yml]", "main.yml:1: include[1]: there is no file none.yml"),
        ("[1]", "main.yml:1: include: expected a list of files or patterns"),
        ("{a: b}", "main.yml:1: include: expected a list of files or patterns"),
        ("['']", "main.yml:1: include: expected a list of files or patterns"),
        ("[conf.d]", "main.yml:1: include[0]: is a folder: add a pattern, as in /*.yml"),
    ],
)
def test_an_include_that_cannot_work_is_an_error(include: str, reported: str) -> None:
    """A pattern may match nothing; a name without wildcards must exist."""
    lines = refusal(f"include: {include}\nservices: {{a: {{kind: process, name: a}}}}")
    assert len(lines) == 1
    assert lines[0].startswith(reported)


@pytest.mark.usefixtures("folder")
def test_a_pattern_that_matches_the_main_file_or_one_file_twice_does_no_harm() -> None:
    """The main file is not included again, and neither is any other, also by a link or another spelling."""
    write("a.yml", "services: {a: {kind: process, name: a}}")
    made = read("include: ['*.yml', a.yml, '[a]*.yml']\nservices: {first: {kind: process, name: b}}")
    assert list(made.services) == ["first", "a"]


def test_a_folder_with_wildcards_in_its_name_is_taken_literally(folder: Path) -> None:
    """Only what the config says is a pattern."""
    odd = folder / "a[b]*"
    odd.mkdir()
    (odd / "main.yml").write_text("include: ['x*.yml']\n")
    (odd / "x1.yml").write_text("services: {a: {kind: process, name: a}}")
    assert list(load(odd / "main.yml", {}).services) == ["a"]


@pytest.mark.usefixtures("folder")
def test_too_many_files_are_refused() -> None:
    """A pattern may be wider than somebody thought."""
    for number in range(1001):
        write(f"conf.d/{number}.yml", "")
    [line] = refusal(MAIN)
    assert line == "main.yml:1: include: 1001 files match, and 1000 are allowed: write narrower patterns"
