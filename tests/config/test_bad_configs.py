"""Every mistake in a config, and the exact words of the message: bad/NAME.yml and, beside it, bad/NAME.txt."""

from pathlib import Path

import pytest
from connection_exporter.config import ConfigError
from connection_exporter.config.document import MAX_BYTES
from connection_exporter.kinds import load, load_environment, load_text

BAD = Path(__file__).with_name("bad")
ENVIRON = {"SECRET": "s3cret"}


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=ENVIRON)
    return str(caught.value).replace(str(path), path.name)


@pytest.mark.parametrize("name", sorted(path.stem for path in BAD.glob("*.yml")))
def test_a_bad_config_is_refused_in_exactly_these_words(name: str) -> None:
    """File, line, path and fix, one line for each mistake, all at once."""
    assert refusal(BAD / f"{name}.yml") == (BAD / f"{name}.txt").read_text().rstrip("\n")


def test_each_golden_file_has_its_twin() -> None:
    """No words without a config, no config without words."""
    names = {suffix: {path.stem for path in BAD.glob(f"*{suffix}")} for suffix in (".yml", ".txt")}
    assert names[".yml"] == names[".txt"]
    assert len(names[".yml"]) > 70


@pytest.mark.parametrize("path", sorted(BAD.glob("*.txt")), ids=lambda path: path.stem)
def test_no_refusal_repeats_a_secret(path: Path) -> None:
    """The secrets of the bad configs, whole or in part, and pydantic's own words, appear nowhere."""
    reported = path.read_text()
    for leak in (
        "s3",
        "cret",
        "12345",
        "Bearer",
        "pydantic",
        "Input should",
        "should have",
        "Traceback",
        "[key]",
    ):
        assert leak not in reported


@pytest.mark.parametrize("path", sorted(BAD.glob("*.txt")), ids=lambda path: path.stem)
def test_each_line_names_its_place(path: Path) -> None:
    """FILE:LINE, but for what is true of no line; the example below is indented."""
    for line in path.read_text().splitlines():
        placed = line.startswith(f"{path.stem}.yml:") and line[len(path.stem) + 5].isdigit()
        assert placed or line.startswith("  ") or "the file is empty" in line, line


def test_a_hundred_thousand_brackets_are_refused_and_do_not_crash_the_interpreter() -> None:
    """The C stack of libyaml's composer would overflow."""
    with pytest.raises(ConfigError, match="nested more than 32 levels deep"):
        load_text("services: " + "[" * 100_000)


def test_a_thousand_aliases_are_reported_on_ten_lines() -> None:
    """Ten lines say it as well as a thousand."""
    with pytest.raises(ConfigError) as caught:
        load_text("a: &a [x]\n" + "".join(f"b{i}: *a\n" for i in range(1000)))
    assert len(caught.value.mistakes) == 10


def test_a_number_of_five_thousand_digits_is_refused() -> None:
    """Python itself would raise ValueError for it."""
    with pytest.raises(ConfigError, match=r"services\.a\.port: expected a whole number"):
        load_text("services: {a: {kind: redis, port: " + "9" * 5000 + "}}")


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    """`--config.file /dev/zero` must end."""
    huge = tmp_path / "huge.yml"
    huge.write_text("#" * (MAX_BYTES + 10))
    assert refusal(huge) == "huge.yml: larger than 8 MiB"
    assert "larger than 8 MiB" in refusal(Path("/dev/zero"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the system's reason."""
    assert refusal(tmp_path / "absent.yml") == "absent.yml: cannot be read: no such file or directory"


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    """As when a volume was mounted in the place of a file."""
    assert refusal(tmp_path) == f"{tmp_path.name}: cannot be read: is a directory"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A part of the path that is a file replaces a lack of rights, which root never has."""
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file" / "c.yml") == "c.yml: cannot be read: not a directory"


@pytest.mark.parametrize(
    ("environ", "reported"),
    [
        (
            {"DATABASE_URL": "mysql://u:s3cret@db"},
            "environment: DATABASE_URL: expected a URL that begins with postgresql:// or postgres://",
        ),
        (
            {"REDIS_URL": "s3cret://cache:6379"},
            "environment: REDIS_URL: expected redis://host:port/database, rediss:// for TLS, valkey://, valkeys://, "
            "tcp://, unix:///path, or host:port",
        ),
        ({"REDIS_URL": "redis://\udce4"}, "environment: REDIS_URL: is not UTF-8 text: set it again"),
        (
            {"API_URL": "u:s3cret@api"},
            "environment: API_URL: expected a URL that begins with http:// or https://",
        ),
        (
            {"WEBSOCKET_URL": "https://s3cret"},
            "environment: WEBSOCKET_URL: expected a URL that begins with ws:// or wss://",
        ),
    ],
)
def test_a_bad_variable_is_named_where_there_is_no_file(environ: dict[str, str], reported: str) -> None:
    """The variable takes the place of the path, and its value is not repeated."""
    with pytest.raises(ConfigError) as caught:
        load_environment(environ)
    assert str(caught.value) == reported


def test_all_bad_variables_are_reported_at_once() -> None:
    """Not one after the other."""
    with pytest.raises(ConfigError) as caught:
        load_environment({"API_URL": "x", "REDIS_URL": "x:y", "DATABASE_URL": "x"})
    assert len(caught.value.mistakes) == 3


def test_a_variable_that_is_not_text_is_refused() -> None:
    """Bytes that are not UTF-8 could not be shown in any metric or JSON."""
    with pytest.raises(ConfigError) as caught:
        load_text('services: {a: {kind: redis, user: "${NAME}"}}', environ={"NAME": "\udce4"})
    reported = "config:1: services.a.user: the environment variable NAME is not UTF-8 text: set it again"
    assert str(caught.value) == reported


@pytest.mark.parametrize(
    ("module", "reported"),
    [
        ("raise RuntimeError('half installed')", "cannot be imported: RuntimeError: half installed"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("pass", "cannot be imported: AttributeError: "),
        ("KIND = dict", "is broken: "),
        (
            "from connection_exporter.kinds import Kind\nKIND = Kind(dict, 'a:B')",
            "is broken: its config is not a ServiceConfig",
        ),
    ],
)
def test_a_broken_kind_of_another_package_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, reported: str
) -> None:
    """The package is named; its traceback is not shown."""
    install(tmp_path, monkeypatch, module)
    with pytest.raises(ConfigError) as caught:
        load_text("services: {a: {kind: broken}}")
    assert f"config:1: services.a.kind: kind 'broken' of brokenkind {reported}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_package_may_fail_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is a mistake of the one service's, without the error's text; a reload does not end the exporter for it."""
    module = """
from connection_exporter.config.service import ServiceConfig
from pydantic import model_validator
from connection_exporter.kinds import Kind
class Config(ServiceConfig):
    @model_validator(mode="after")
    def _look(self):
        raise KeyError("s3cret")
KIND = Kind(Config, "not.imported:Check")
"""
    install(tmp_path, monkeypatch, module)
    with pytest.raises(ConfigError) as caught:
        load_text("services: {a: {kind: broken}, b: {kind: redis, port: 0}}")
    assert caught.value.lines == (
        "config:1: services.a: cannot be checked by its kind: unexpected KeyError",
        "config:1: services.b.port: expected at least 1, not 0",
    )


def test_rules_are_checked_in_a_kind_of_another_package_that_lacks_a_required_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules of its base class are still checked, on the keys of the base class."""
    module = """
from connection_exporter.config.service import ServiceConfig
from connection_exporter.kinds import Kind
class Config(ServiceConfig):
    address: str
    RULES = (lambda config: f"address: {config.address} is taken",)
KIND = Kind(Config, "not.imported:Check")
"""
    install(tmp_path, monkeypatch, module)
    with pytest.raises(ConfigError) as caught:
        load_text("services: {a: {kind: broken, timeout: 40s}, b: {kind: broken, address: x, retries: 0}}")
    assert caught.value.lines == (
        "config:1: services.a.address: is missing: add it",
        "config:1: services.a: timeout 40s is longer than interval 30s: lower timeout or raise interval",
        "config:1: services.b.retries: expected at least 1, not 0",
        "config:1: services.b.address: x is taken",
    )


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make a package with the kind `broken` importable, as if it had been installed."""
    meta = folder / "brokenkind-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: brokenkind\nVersion: 1.0\n")
    name = f"broken_kind_{abs(hash(module))}"
    (meta / "entry_points.txt").write_text(f"[connection_exporter.kinds]\nbroken = {name}:KIND\n")
    (folder / f"{name}.py").write_text(module)
    monkeypatch.syspath_prepend(folder)
