#!/usr/bin/env python3
"""Write Alertmanager's configuration from variables and secret files; never talk to a network.

Alertmanager expands no variables, and its own check passes when the file of a secret is missing.
So this writes the receivers that are set, and only those, names each secret by its file, and looks
at each file before it writes.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import glob
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

EXIT_OK, EXIT_CANNOT_WRITE, EXIT_BAD_INPUT = 0, 1, 2

# Every variable, in the order of --help. A name that ends in _FILE holds the path of a file, for
# nothing else may hold a secret.
VARIABLES = {
    "ALERT_EMAIL_TO": "email: who is told; several with commas",
    "ALERT_EMAIL_FROM": "email: the sender",
    "ALERT_EMAIL_SMARTHOST": "email: host:port of the mail server",
    "ALERT_EMAIL_USERNAME": "email: user name at the mail server, if it wants one",
    "ALERT_EMAIL_PASSWORD_FILE": "email: file with the password for it",
    "ALERT_EMAIL_REQUIRE_TLS": "email: true (the default) or false",
    "ALERT_SMS_PHONE_NUMBER": "SMS by Amazon SNS: the number, as +4915112345678",
    "ALERT_SMS_REGION": "SMS: the region, as eu-central-1",
    "ALERT_SMS_PROFILE": "SMS: profile in AWS_SHARED_CREDENTIALS_FILE, if not the default",
    "ALERT_SLACK_URL_FILE": "Slack: file with the address of the incoming webhook",
    "ALERT_SLACK_CHANNEL": "Slack: another channel than the webhook's own",
    "ALERT_DISCORD_URL_FILE": "Discord: file with the address of the webhook (Alertmanager 0.28)",
    "ALERT_TELEGRAM_TOKEN_FILE": "Telegram: file with the bot's token (Alertmanager 0.28)",
    "ALERT_TELEGRAM_CHAT_ID": "Telegram: number of the chat",
    "ALERT_PAGERDUTY_KEY_FILE": "PagerDuty: file with the integration key (Events API v2)",
    "ALERT_WEBHOOK_URL": "webhook: the address, if it holds no secret",
    "ALERT_WEBHOOK_URL_FILE": "webhook: file with the address, if it does (Alertmanager 0.28)",
    "ALERT_WEBHOOK_TOKEN_FILE": "webhook: file with a bearer token",
    "ALERT_WATCHDOG_URL": "dead man's switch: address to call each minute, if no secret",
    "ALERT_WATCHDOG_URL_FILE": "dead man's switch: file with it, if secret (Alertmanager 0.28)",
}

# Amazon's own variable: Alertmanager reads the keys for SNS from there by itself, so the file is
# only looked at.
AWS_CREDENTIALS = "AWS_SHARED_CREDENTIALS_FILE"

Section = dict[str, object]


class Reader:
    """Hand out settings and collect every mistake in them, each with its mend."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Keep what is set, and note each variable that this program does not know."""
        # An empty variable is an unset one: compose files pass `${VAR:-}`.
        self._set = {key: value.strip() for key, value in environment.items() if value.strip()}
        self.mistakes: list[str] = []
        for name in sorted(self._set):
            if name.startswith("ALERT_") and name not in VARIABLES:
                self._unknown(name)

    def any(self, *names: str) -> bool:
        """Tell whether at least one of the variables is set."""
        return any(name in self._set for name in names)

    def optional(self, name: str) -> str | None:
        """Return the value, or None when it is not set."""
        return self._set.get(name)

    def required(self, name: str, because: str, shape: str = "", example: str = "") -> str:
        """Return the value; it is a mistake if it is missing or not of the pattern `shape`."""
        value = self._set.get(name)
        if value is None:
            self.mistakes.append(f"{name} is not set, and {because} needs it: set it ({VARIABLES[name]})")
            return ""
        if shape and not re.fullmatch(shape, value):
            self.mistakes.append(f"{name} is {value!r}: write it like {example}")
        return value

    def address(self, name: str) -> str:
        """Return a web address that is not secret."""
        value = self._set[name]
        if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
            self.mistakes.append(
                f"{name} is no plain http:// or https:// address: mend it, or, if it holds a "
                f"user or a "
                f"password, put it into a file and set {name}_FILE to its path"
            )
        return value

    def secret(self, name: str, check: Callable[[str], bool] = bool, wanted: str = "") -> str:
        """Return the path of a secret's file after a look at it; its content is never shown."""
        path = Path(self._set[name])
        what = f"{name} names {path}"
        if not path.is_absolute():
            self.mistakes.append(
                f"{what}, a relative path, which Alertmanager may resolve otherwise: make it absolute"
            )
            return str(path)
        try:
            content = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            self.mistakes.append(f"{what}, which does not exist: create it, or unset {name}")
        except IsADirectoryError:
            self.mistakes.append(
                f"{what}, which is a directory: Docker creates one where a mounted file is "
                f"missing; put the file there"
            )
        except PermissionError:
            self.mistakes.append(
                f"{what}, which user {os.geteuid()} may not read: give the user that runs "
                f"Alertmanager the right to"
            )
        except (OSError, UnicodeDecodeError) as error:
            self.mistakes.append(
                f"{what}, which cannot be read ({error}): write the secret into it as plain text"
            )
        else:
            if not content:
                self.mistakes.append(f"{what}, which is empty: write the secret into it")
            elif not check(content):
                self.mistakes.append(
                    f"{what}, whose content is not {wanted}: write that, and nothing else, into it"
                )
        return str(path)

    def _unknown(self, name: str) -> None:
        if f"{name}_FILE" in VARIABLES:
            mend = f"secrets come from files only: put it into a file and set {name}_FILE to its path"
        elif near := difflib.get_close_matches(name, VARIABLES, n=1):
            mend = f"did you mean {near[0]}?"
        else:
            mend = "unset it, or see --help for the names"
        self.mistakes.append(f"{name} is not a variable of this program: {mend}")


def is_address(content: str) -> bool:
    """Tell whether a secret file holds one web address."""
    return re.fullmatch(r"https?://\S+", content) is not None


def is_word(content: str) -> bool:
    """Tell whether a secret file holds one word."""
    return re.fullmatch(r"\S+", content) is not None


MAILBOX = r"[^@\s,]+@[^@\s,]+"
AN_ADDRESS = "one address that starts with https://"


def email(read: Reader) -> Section | None:
    """Build the email receiver."""
    if not read.any(*(name for name in VARIABLES if name.startswith("ALERT_EMAIL_"))):
        return None
    section: Section = {
        "to": read.required("ALERT_EMAIL_TO", "email", rf"{MAILBOX}(\s*,\s*{MAILBOX})*", "ops@example.com"),
        "from": read.required("ALERT_EMAIL_FROM", "email", MAILBOX, "alerts@example.com"),
        "smarthost": read.required("ALERT_EMAIL_SMARTHOST", "email", r"\S+:\d+", "mail.example.com:587"),
        "headers": {"Subject": '{{ template "connection.email.subject" . }}'},
        "text": '{{ template "connection.email.text" . }}',
        "html": '{{ template "connection.email.html" . }}',
        "send_resolved": True,
    }
    if read.any("ALERT_EMAIL_USERNAME", "ALERT_EMAIL_PASSWORD_FILE"):
        section["auth_username"] = read.required("ALERT_EMAIL_USERNAME", "ALERT_EMAIL_PASSWORD_FILE")
        read.required("ALERT_EMAIL_PASSWORD_FILE", "ALERT_EMAIL_USERNAME")
        if read.any("ALERT_EMAIL_PASSWORD_FILE"):
            section["auth_password_file"] = read.secret("ALERT_EMAIL_PASSWORD_FILE")
    if read.any("ALERT_EMAIL_REQUIRE_TLS"):
        tls = read.required("ALERT_EMAIL_REQUIRE_TLS", "email", "true|false", "true or false")
        section["require_tls"] = tls == "true"
    return section


def sms(read: Reader) -> Section | None:
    """Build the SMS receiver; Alertmanager asks Amazon's usual chain for the keys."""
    if not read.any("ALERT_SMS_PHONE_NUMBER", "ALERT_SMS_REGION", "ALERT_SMS_PROFILE"):
        return None
    sigv4: Section = {
        "region": read.required("ALERT_SMS_REGION", "SMS", r"[a-z]+(-[a-z]+)+-\d+", "eu-central-1")
    }
    if profile := read.optional("ALERT_SMS_PROFILE"):
        sigv4["profile"] = profile
    if read.any(AWS_CREDENTIALS):
        read.secret(AWS_CREDENTIALS)
    return {
        "phone_number": read.required("ALERT_SMS_PHONE_NUMBER", "SMS", r"\+\d{6,15}", "+4915112345678"),
        "sigv4": sigv4,
        "message": '{{ template "connection.sms" . }}',
        "send_resolved": True,
    }


def slack(read: Reader) -> Section | None:
    """Build the Slack receiver."""
    if not read.any("ALERT_SLACK_URL_FILE", "ALERT_SLACK_CHANNEL"):
        return None
    read.required("ALERT_SLACK_URL_FILE", "ALERT_SLACK_CHANNEL")
    section: Section = {
        "title": '{{ template "connection.chat.title" . }}',
        "title_link": '{{ template "connection.chat.link" . }}',
        "text": '{{ template "connection.chat.text" . }}',
        "fallback": '{{ template "connection.chat.title" . }}',
        "color": '{{ template "connection.chat.color" . }}',
        "send_resolved": True,
    }
    if read.any("ALERT_SLACK_URL_FILE"):
        section["api_url_file"] = read.secret("ALERT_SLACK_URL_FILE", is_address, AN_ADDRESS)
    if channel := read.optional("ALERT_SLACK_CHANNEL"):
        section["channel"] = channel
    return section


def discord(read: Reader) -> Section | None:
    """Build the Discord receiver."""
    if not read.any("ALERT_DISCORD_URL_FILE"):
        return None
    return {
        "webhook_url_file": read.secret("ALERT_DISCORD_URL_FILE", is_address, AN_ADDRESS),
        "title": '{{ template "connection.chat.title" . }}',
        "message": '{{ template "connection.chat.text" . }}',
        "send_resolved": True,
    }


def telegram(read: Reader) -> Section | None:
    """Build the Telegram receiver, as plain text, so that no name can break its markup."""
    if not read.any("ALERT_TELEGRAM_TOKEN_FILE", "ALERT_TELEGRAM_CHAT_ID"):
        return None
    chat = read.required("ALERT_TELEGRAM_CHAT_ID", "Telegram", r"-?\d+", "-1001234567890")
    read.required("ALERT_TELEGRAM_TOKEN_FILE", "Telegram")
    section: Section = {
        "message": ('{{ template "connection.chat.title" . }}\n\n{{ template "connection.chat.text" . }}'),
        "parse_mode": "",
        "send_resolved": True,
    }
    if read.any("ALERT_TELEGRAM_TOKEN_FILE"):
        wanted = "one token like 123456:ABC"
        section["bot_token_file"] = read.secret("ALERT_TELEGRAM_TOKEN_FILE", is_word, wanted)
    with suppress(ValueError):
        section["chat_id"] = int(chat)
    return section


def pagerduty(read: Reader) -> Section | None:
    """Build the PagerDuty receiver."""
    if not read.any("ALERT_PAGERDUTY_KEY_FILE"):
        return None
    return {
        "routing_key_file": read.secret("ALERT_PAGERDUTY_KEY_FILE", is_word, "one key"),
        "description": '{{ template "connection.chat.title" . }}',
        "severity": ("{{ if .CommonLabels.severity }}{{ .CommonLabels.severity }}{{ else }}error{{ end }}"),
        "details": {"text": '{{ template "connection.chat.text" . }}'},
        "links": [{"href": '{{ template "connection.chat.link" . }}', "text": "Dashboard"}],
        "send_resolved": True,
    }


def webhook(read: Reader) -> Section | None:
    """Build the webhook receiver."""
    names = ("ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_URL_FILE", "ALERT_WEBHOOK_TOKEN_FILE")
    if not read.any(*names):
        return None
    section: Section = {**_url(read, "ALERT_WEBHOOK_URL"), "send_resolved": True}
    if read.any("ALERT_WEBHOOK_TOKEN_FILE"):
        token = read.secret("ALERT_WEBHOOK_TOKEN_FILE", is_word, "one token")
        section["http_config"] = {"authorization": {"type": "Bearer", "credentials_file": token}}
    return section


def watchdog(read: Reader) -> Section | None:
    """Build the receiver of the Watchdog, which has no end to tell of."""
    if not read.any("ALERT_WATCHDOG_URL", "ALERT_WATCHDOG_URL_FILE"):
        return None
    return {**_url(read, "ALERT_WATCHDOG_URL"), "send_resolved": False}


def _url(read: Reader, name: str) -> Section:
    if read.any(name) and read.any(f"{name}_FILE"):
        read.mistakes.append(f"{name} and {name}_FILE are both set: unset one of them")
    elif read.any(f"{name}_FILE"):
        return {"url_file": read.secret(f"{name}_FILE", is_address, AN_ADDRESS)}
    elif read.any(name):
        return {"url": read.address(name)}
    else:
        read.mistakes.append(
            f"{name} is not set, and ALERT_WEBHOOK_TOKEN_FILE needs it: set it, or {name}_FILE"
        )
    return {}


# The key of Alertmanager's configuration, what builds it, and the severities it is told of. SMS and
# PagerDuty wake people, so they get nothing else; what is only worth a line in the chat is not
# worth an email.
CHANNELS: tuple[tuple[str, Callable[[Reader], Section | None], tuple[str, ...]], ...] = (
    ("email_configs", email, ("page", "ticket")),
    ("sns_configs", sms, ("page",)),
    ("slack_configs", slack, ("page", "ticket", "info")),
    ("discord_configs", discord, ("page", "ticket", "info")),
    ("telegram_configs", telegram, ("page", "ticket", "info")),
    ("pagerduty_configs", pagerduty, ("page",)),
    ("webhook_configs", webhook, ("page", "ticket", "info")),
)


def render(
    environment: Mapping[str, str], *, templates: str = "templates/*.tmpl"
) -> tuple[Section, list[str]]:
    """Return the configuration and the mistakes; the former is of use only without the latter."""
    read = Reader(environment)
    receivers: dict[str, Section] = {name: {"name": name} for name in ("page", "ticket", "info", "watchdog")}
    for key, build, severities in CHANNELS:
        section = build(read)
        if section is not None:
            for name in severities:
                # A copy each, or YAML would write aliases, which are hard to read.
                receivers[name][key] = [copy.deepcopy(section)]
    # Where nobody chats, the next best channel must carry the lesser severities rather than lose
    # them; but never SMS.
    for lesser, greater in (("ticket", "page"), ("info", "ticket")):
        if len(receivers[lesser]) == 1:
            receivers[lesser] = {**copy.deepcopy(receivers[greater]), "name": lesser}
            receivers[lesser].pop("sns_configs", None)
    heartbeat = watchdog(read)
    if heartbeat is not None:
        receivers["watchdog"]["webhook_configs"] = [heartbeat]
    return {
        "global": {"resolve_timeout": "5m"},
        "templates": [templates],
        "route": route(),
        "inhibit_rules": inhibit_rules(),
        "receivers": list(receivers.values()),
    }, read.mistakes


def route() -> Section:
    """Return the routes by severity; what has none is a ticket."""
    return {
        "receiver": "ticket",
        "group_by": ["name"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "12h",
        "routes": [
            # Sent at every second flush, each minute: after one flush it is not due yet, after two it is.
            # Two equal intervals would miss each other by milliseconds.
            {
                "matchers": ['alertname="Watchdog"'],
                "receiver": "watchdog",
                "group_wait": "0s",
                "group_interval": "30s",
                "repeat_interval": "45s",
            },
            # 1s, not 0s: ConnectionAllDown comes in the same message as what it mutes, and must be
            # there first. 10s: the end of a page, and the next one of the same service, are worth as
            # much as the first; what flaps is held together by the alerts themselves.
            {
                "matchers": ['severity="critical"'],
                "receiver": "page",
                "group_wait": "1s",
                "group_interval": "10s",
                "repeat_interval": "4h",
            },
            {"matchers": ['severity="info"'], "receiver": "info", "repeat_interval": "3d"},
        ],
    }


def inhibit_rules() -> list[Section]:
    """Return who mutes whom; no alert can match both sides of a rule, or it would mute itself."""
    of_services = [
        'alertname=~"Connection.+"',
        'alertname!~"ConnectionExporter.+|ConnectionAllDown"',
        'name=~".+"',
    ]
    symptoms = (
        "Unhealthy|Stale|Flapping|CanaryFailing|LatencyHigh|ErrorBudgetBurn"
        "|ProcessRestarted|ProcessRestarting"
    )
    return [
        # Who sees nothing must not speak: the services of an exporter that is gone or stalled, and
        # their sum.
        {
            "source_matchers": ['alertname=~"ConnectionExporterDown|ConnectionExporterLoopStalled"'],
            "target_matchers": ['alertname=~"Connection.+"', 'alertname!~"ConnectionExporter.+"'],
            "equal": ["job", "instance"],
        },
        # An exporter that is gone can have no other trouble.
        {
            "source_matchers": ['alertname="ConnectionExporterDown"'],
            "target_matchers": [
                'alertname=~"ConnectionExporter.+"',
                'alertname!="ConnectionExporterDown"',
            ],
            "equal": ["job", "instance"],
        },
        # One message for all in place of one each.
        {
            "source_matchers": ['alertname="ConnectionAllDown"'],
            "target_matchers": of_services,
            "equal": ["job", "instance"],
        },
        # A page for a service makes its tickets wait. The name must be there: labels that both lack
        # count as equal.
        {
            "source_matchers": ['severity="critical"', 'name=~".+"'],
            "target_matchers": ['severity=~"warning|info"', 'name=~".+"'],
            "equal": ["job", "instance", "name"],
        },
        # Disconnected is the cause, whatever its severity; the others are its symptoms.
        {
            "source_matchers": ['alertname="ConnectionDisconnected"'],
            "target_matchers": [f'alertname=~"Connection({symptoms})"'],
            "equal": ["job", "instance", "name"],
        },
        # A failing canary makes a service unhealthy, and says why.
        {
            "source_matchers": ['alertname="ConnectionCanaryFailing"'],
            "target_matchers": ['alertname="ConnectionUnhealthy"'],
            "equal": ["job", "instance", "name"],
        },
    ]


def loses_tickets(config: Section) -> bool:
    """Tell whether pages have a channel, but tickets have none."""
    receivers = config["receivers"]
    assert isinstance(receivers, list)
    page, ticket = receivers[0], receivers[1]
    return len(page) > 1 and len(ticket) == 1


HEADER = """\
# Alertmanager's configuration, written by alertmanager/render.py: change that, or the environment,
# and render again. docs/alerts.md tells how routing works and how each receiver is set. Receivers
# without any channel notify nobody: their alerts show in Alertmanager's own interface and in
# Grafana.
"""


def as_text(config: Section) -> str:
    """Return the configuration as YAML under a comment that says where it comes from."""
    return HEADER + yaml.safe_dump(config, sort_keys=False, width=1000, allow_unicode=True)


def write(text: str, path: Path) -> None:
    """Replace the file at once; it holds no secret and is for all to read."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    width = max(map(len, VARIABLES))
    variables = "\n".join(f"  {name:<{width}}  {text}" for name, text in VARIABLES.items())
    parser = argparse.ArgumentParser(
        prog="render.py",
        description="Write Alertmanager's configuration from variables and secret files.",
        epilog=f"environment variables (those set decide which receivers there are):\n{variables}\n\n"
        "exit status: 0 written, 1 cannot write, 2 wrong variable, file or argument",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="FILE", help="where to write it (default: standard output)")
    parser.add_argument("--check", action="store_true", help="look for mistakes and write nothing")
    parser.add_argument(
        "--templates",
        metavar="GLOB",
        default="templates/*.tmpl",
        help="the templates, relative to the output's directory (default: %(default)s)",
    )
    return parser


def main(argv: list[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Run the program and return its exit status."""
    options = arguments().parse_args(argv)
    config, mistakes = render(environment, templates=options.templates)
    output = Path(options.output) if options.output else None
    if output is not None and not options.check:
        # Path.glob takes no absolute pattern.
        found = glob.glob(options.templates, root_dir=output.parent)  # noqa: PTH207
        if not found:
            mistakes.append(
                f"--templates {options.templates} matches no file from {output.parent}: "
                "copy alertmanager/templates there, or give the path of its *.tmpl"
            )
    if mistakes:
        for mistake in mistakes:
            print(f"render.py: error: {mistake}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if loses_tickets(config):
        print(
            "render.py: note: SMS is for pages only, so nobody is told of tickets: set a channel for them",
            file=sys.stderr,
        )
    if options.check:
        return EXIT_OK
    if output is None:
        sys.stdout.write(as_text(config))
        return EXIT_OK
    try:
        write(as_text(config), output)
    except OSError as error:
        print(
            f"render.py: error: cannot write {output} ({error.strerror}): create its "
            f"directory, or make it "
            "writable for this user",
            file=sys.stderr,
        )
        return EXIT_CANNOT_WRITE
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
