"""What is written about the product is true of it: links, configs, flags, metrics, reasons and tables."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from connection_exporter.cli.main import belongs_to_serve
from connection_exporter.cli.parser import build_parser
from connection_exporter.config.document import parse
from connection_exporter.config.service import ServiceConfig
from connection_exporter.config.tls import TlsConfig
from connection_exporter.config.web_file import WebFile
from connection_exporter.core.health import Reason
from connection_exporter.kind import Traits
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import KINDS
from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
KIND_PAGES = {kind: ROOT / "docs" / "kinds" / f"{kind}.md" for kind in KINDS}
ENVIRONMENT = {
    "DATABASE_URL": "postgresql://user:word@db.example.com:5432/app",
    "ORDERS_DATABASE_URL": "postgresql://user:word@orders-db:5432/orders",
    "REPORTS_DATABASE_URL": "postgresql://user:word@reports-db:5432/reports",
    "DB_PASSWORD": "word",
    "REPLICA_PASSWORD": "word",
    "REDIS_PASSWORD": "word",
    "API_TOKEN": "word",
    "STREAM_TOKEN": "word",
    "CREDENTIALS_DIRECTORY": "/run/credentials",
}
FOREIGN_FLAGS = {
    "--web.user-assets",
    "--web.external-url",
    "--web.listen-address",
    "--storage.tsdb.retention.time",
    "--config.file",
}
"""Of Prometheus and Alertmanager, where their names begin as ours do."""

NO_METRICS = {"connection_exporter", "connection_exporter_smtp", "connection_limit"}
"""A role in SQL and ACLs, a module, and a parameter of Prisma: words that only look like metrics."""

HASH = f"$2y$10${'a' * 53}"
"""In place of the hash that a page leaves out."""

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"[^\"]*\")?\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
_HTML = re.compile(r"(?:src|srcset|href)=\"(?P<target>[^\"]+)\"")
_METRIC = re.compile(r"(?<![\w:./-])connection_[a-z0-9_]+(?![\w.])")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yield the code blocks of a page in these languages, without their indent."""
    for found in _BLOCK.finditer(page.read_text()):
        if found["language"] in languages:
            indent = len(found["indent"])
            yield "".join(line[indent:] for line in found["text"].splitlines(keepends=True))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose = _BLOCK.sub("", page.read_text())
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        base = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number, anchor = 0, base
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


def links(page: Path) -> set[str]:
    """Return what a page links to within the repository."""
    prose = _BLOCK.sub("", page.read_text())
    found = {link["target"] or link["image"] for link in _LINK.finditer(prose)}
    found |= {link["target"] for link in _HTML.finditer(prose)}
    return {target for target in found if not re.match(r"[a-z]+:", target)}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    """Relative links and anchors, images too."""
    wrong = []
    for target in links(page):
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(target)
    assert wrong == []


def test_the_index_leads_to_every_page() -> None:
    """A page that nobody finds is not there."""
    docs = ROOT / "docs"
    linked = {(docs / target.partition("#")[0]).resolve() for target in links(docs / "README.md")}
    pages = {*docs.glob("*.md"), *docs.glob("kinds/*.md"), *docs.glob("how-to/*.md")} - {docs / "README.md"}
    assert {ids(page) for page in pages - linked} == set()


def configs(page: Path) -> list[str]:
    """Return the configs of the exporter on a page: the mappings whose services have a kind."""
    found = []
    for block in blocks(page, "yaml", "yml"):
        content = yaml.safe_load(block)
        services = content.get("services") if isinstance(content, dict) else None
        if isinstance(services, dict) and any("kind" in service for service in services.values()):
            found.append(block)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if configs(page)], ids=ids)
def test_every_config_that_is_shown_is_valid(page: Path) -> None:
    """With stand-ins for the variables."""
    for config in configs(page):
        assert load_text(config, source=page.name, environ=ENVIRONMENT).services


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "yaml", "yml"))], ids=ids)
def test_every_block_of_yaml_can_be_read(page: Path) -> None:
    """A web config is read by its model, everything else at least as YAML."""
    for block in blocks(page, "yaml", "yml"):
        assert yaml.safe_load(block)
        if "tls_server_config:" in block:
            WebFile.model_validate(parse(block.replace("$2y$10$…", HASH), as_go=True).value)


def test_the_quick_start_and_the_readme_show_a_config() -> None:
    """Or the tests above hold nothing."""
    for page in (ROOT / "README.md", ROOT / "docs" / "quickstart.md", *KIND_PAGES.values()):
        assert configs(page), page


def flags_of(parser: Any) -> dict[str, set[str]]:
    """Return the flags of each command; those of the default one under ``serve``."""
    commands = next(a.choices for a in parser._actions if isinstance(getattr(a, "choices", None), Mapping))
    return {
        name: {flag for action in command._actions for flag in action.option_strings}
        for name, command in commands.items()
    }


FLAGS = flags_of(build_parser())


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_flag_that_is_named_exists(page: Path) -> None:
    """In commands, and in prose where the name has the form of ours."""
    ours = set().union(*FLAGS.values())
    named = re.findall(r"--(?:web|config|storage|log)\.[a-z][a-z.\-]*[a-z]", page.read_text())
    assert set(named) - ours - FOREIGN_FLAGS == set()


def commands() -> list[tuple[str, str]]:
    """Return page and words of each command line that runs the exporter."""
    found = []
    for page in PAGES:
        for block in blocks(page, "console", "sh"):
            joined = block.replace("\\\n", " ")
            lines = re.findall(
                r"^[$#]? ?(?:\S*bin/)?connection-exporter(?!/| *\\)(?: .*)?$", joined, re.MULTILINE
            )
            found += [(ids(page), line.lstrip("$# ")) for line in lines]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_of_ours_that_is_shown_can_be_parsed(page: str, line: str) -> None:
    """With the parser of the program itself, up to what the shell makes of the rest."""
    words = shlex.split(re.split(r"\s(?:\||2>|&|>)", line)[0], comments=True)[1:]
    if not words or belongs_to_serve(words[0]):
        words.insert(0, "serve")
    if "--version" not in words:
        assert build_parser().parse_args(words).command


def metrics() -> set[str]:
    """Return the names of docs/metrics.md, which another test holds against what is exposed."""
    table = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\w+) \|", table, re.MULTILINE)
    histograms = {name for name, kind in rows if kind == "histogram"}
    suffixed = {f"{name}_{suffix}" for name in histograms for suffix in ("bucket", "count", "sum")}
    return {name for name, _ in rows} | suffixed


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_metric_that_is_named_exists(page: Path) -> None:
    """In prose, in queries and in commands; not what only looks like one."""
    named = set(_METRIC.findall(page.read_text())) - NO_METRICS
    assert {name for name in named if not name.endswith("_")} - metrics() == set()


def traits(kind: str) -> Traits:
    """Return what is true of each service of a kind."""
    found: Traits = vars(KINDS[kind].load())["traits"]
    return found


def section(page: Path, heading: str) -> str:
    """Return one section of a page."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {heading}"
    return found[1]


def first_column(text: str) -> list[str]:
    """Return the words in code of the first column of a table."""
    rows = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_a_kind_explains_each_reason_that_it_declares(kind: str) -> None:
    """Each once; one that is declared and cannot come is said in prose."""
    reasons = section(KIND_PAGES[kind], "Reasons")
    reported = first_column(reasons)
    assert len(reported) == len(set(reported))
    declared = {reason.value for reason in traits(kind).reasons}
    assert set(reported) - declared == set()
    assert {reason for reason in declared - set(reported) if f"`{reason}`" not in reasons} == set()


def test_troubleshooting_explains_every_reason_there_is() -> None:
    """Each once."""
    reported = first_column(section(ROOT / "docs" / "troubleshooting.md", "By reason"))
    assert sorted(reported) == sorted(Reason)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_a_kind_names_each_of_its_metrics(kind: str) -> None:
    """And no metric of another kind."""
    named = set(_METRIC.findall(section(KIND_PAGES[kind], "Details and metrics"))) - NO_METRICS
    assert named == {metric.name for metric in traits(kind).metrics}


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield each key of a model, with those of the models within it."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = next(
            (a for a in (field.annotation, *_arguments(field.annotation)) if _is_model(a)),
            None,
        )
        yield f"{prefix}{key}"
        if inner is not None and inner is not TlsConfig:
            yield from keys_of(inner, f"{prefix}{key}.")


def _arguments(annotation: object) -> tuple[Any, ...]:
    return tuple(getattr(annotation, "__args__", ()))


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def written_keys(value: object, prefix: str = "") -> Iterator[str]:
    """Yield each key of a config, lists left out of the path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{prefix}{key}"
            yield from written_keys(inner, f"{prefix}{key}.")
    elif isinstance(value, list):
        for item in value:
            yield from written_keys(item, prefix)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_a_kind_shows_every_option_in_an_example(kind: str) -> None:
    """Of the kind; those of the policy stand in the reference. The steps of both dialogues are the same."""
    shown: set[str] = set()
    for config in configs(KIND_PAGES[kind]):
        for service in yaml.safe_load(config)["services"].values():
            assert service["kind"] == kind
            shown |= set(written_keys(service))
    ours = set(keys_of(KINDS[kind].config)) - ServiceConfig.model_fields.keys()
    shown |= {key.replace("on_connect.", "on_probe.") for key in shown}
    secrets = {"password", "client_secret"}  # better in a file
    assert {key for key in ours - shown if key.rpartition(".")[2] not in secrets} - {"url"} == set()


def test_the_reference_says_which_words_a_key_takes() -> None:
    """And that a key which is required in an optional part is not so elsewhere."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert "`disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full` |" in page
    assert "| `expect.role` | none | role that the server must have: `primary`, `standby` |" in page
    assert "| `heartbeat.file` | required in `heartbeat` |" in page


def test_the_reference_is_what_the_models_say() -> None:
    """`scripts/reference.py` writes the tables of docs/configuration.md; what is committed is what it writes."""
    done = subprocess.run(
        (sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"),
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_code_in_a_list_is_indented_by_four(page: Path) -> None:
    """GitHub accepts less; on the site, a numbered list would start again at 1."""
    assert re.findall(r"^ {1,3}```.*$", page.read_text(), re.MULTILINE) == []
