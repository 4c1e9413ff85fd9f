#!/usr/bin/env python3
"""Write Alertmanager's configuration from environment variables and secret files, without any network access.

Alertmanager does not expand environment variables, and its own check passes if the file of a secret is missing. So
this program takes the routes and inhibition rules of base.yml, adds a receiver for each channel whose variables are
set, refers to each secret by its file, and checks each file before it writes.
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

BASE = Path(__file__).resolve().with_name("base.yml")

# Every variable, in the order of --help. Secrets come from files only: a name that ends in _FILE holds a path.
VARIABLES = {
    "ALERT_EMAIL_TO": "email: recipients, separated by commas",
    "ALERT_EMAIL_FROM": "email: the sender",
    "ALERT_EMAIL_SMARTHOST": "email: host:port of the mail server",
    "ALERT_EMAIL_USERNAME": "email: user name at the mail server, if it requires one",
    "ALERT_EMAIL_PASSWORD_FILE": "email: file with the password of that user",
    "ALERT_EMAIL_REQUIRE_TLS": "email: true (the default) or false",
    "ALERT_SMS_PHONE_NUMBER": "SMS through Amazon SNS: the number, such as +4915112345678",
    "ALERT_SMS_REGION": "SMS: the region, such as eu-central-1",
    "ALERT_SMS_PROFILE": "SMS: profile in AWS_SHARED_CREDENTIALS_FILE, if not the default",
    "ALERT_SLACK_URL_FILE": "Slack: file with the URL of the incoming webhook",
    "ALERT_SLACK_CHANNEL": "Slack: a channel other than the webhook's own",
    "ALERT_DISCORD_URL_FILE": "Discord: file with the URL of the webhook (Alertmanager 0.28)",
    "ALERT_TELEGRAM_TOKEN_FILE": "Telegram: file with the bot's token (Alertmanager 0.28)",
    "ALERT_TELEGRAM_CHAT_ID": "Telegram: ID of the chat",
    "ALERT_PAGERDUTY_KEY_FILE": "PagerDuty: file with the integration key (Events API v2)",
    "ALERT_WEBHOOK_URL": "webhook: the URL, if it contains no secret",
    "ALERT_WEBHOOK_URL_FILE": "webhook: file with the URL, if it contains a secret (Alertmanager 0.28)",
    "ALERT_WEBHOOK_TOKEN_FILE": "webhook: file with a bearer token",
    "ALERT_WATCHDOG_URL": "dead man's switch: URL to call once a minute, if it contains no secret",
    "ALERT_WATCHDOG_URL_FILE": "dead man's switch: file with the URL, if it contains a secret (Alertmanager 0.28)",
    "ALERT_ROUTES": "YAML file: for each group of services, the list of channels that receive its alerts",
}

# Amazon's own variable. Alertmanager reads the keys for SNS from that file itself, so the file is only checked.
AWS_CREDENTIALS = "AWS_SHARED_CREDENTIALS_FILE"

Section = dict[str, object]


class Reader:
    """Returns settings and collects every error in them, each with its fix."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Keep the variables that are set, and report each unknown one."""
        # An empty variable counts as not set: Compose files pass `${VAR:-}`.
        self._set = {key: value.strip() for key, value in environment.items() if value.strip()}
        self.errors: list[str] = []
        for name in sorted(self._set):
            if name.startswith("ALERT_") and name not in VARIABLES:
                self._unknown(name)

    def any(self, *names: str) -> bool:
        """Return whether at least one of the variables is set."""
        return any(name in self._set for name in names)

    def optional(self, name: str) -> str | None:
        """Return the value, or None when it is not set."""
        return self._set.get(name)

    def required(self, name: str, because: str, shape: str = "", example: str = "") -> str:
        """Return the value; it is an error if it is missing or does not match the pattern `shape`."""
        value = self._set.get(name)
        if value is None:
            self.errors.append(f"{name} is not set, but {because} needs it: set it ({VARIABLES[name]})")
            return ""
        if shape and not re.fullmatch(shape, value):
            self.errors.append(f"{name} is {value!r}: write it like {example}")
        return value

    def address(self, name: str) -> str:
        """Return a URL that contains no secret."""
        value = self._set[name]
        if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
            self.errors.append(
                f"{name} is not a plain http:// or https:// URL: correct it or, if it contains a user or a password, "
                f"put it into a file and set {name}_FILE to the path"
            )
        return value

    def secret(self, name: str, check: Callable[[str], bool] = bool, wanted: str = "") -> str:
        """Return the path of a secret's file after checking the file; its content is never shown."""
        path = Path(self._set[name])
        what = f"{name} names {path}"
        if not path.is_absolute():
            self.errors.append(
                f"{what}, a relative path, which Alertmanager may resolve differently: use an absolute path"
            )
            return str(path)
        try:
            content = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            self.errors.append(f"{what}, which does not exist: create it, or unset {name}")
        except IsADirectoryError:
            self.errors.append(
                f"{what}, which is a directory: Docker creates one if a mounted file is missing; put the file there"
            )
        except PermissionError:
            self.errors.append(
                f"{what}, which user {os.geteuid()} cannot read: allow the user that runs Alertmanager to read it"
            )
        except (OSError, UnicodeDecodeError) as error:
            self.errors.append(
                f"{what}, which cannot be read ({error}): write the secret to it as plain text"
            )
        else:
            if not content:
                self.errors.append(f"{what}, which is empty: write the secret to it")
            elif not check(content):
                self.errors.append(f"{what}, whose content is not {wanted}: write exactly that to it")
        return str(path)

    def routes(self, name: str, built: Mapping[str, Section]) -> dict[str, list[str]]:
        """Return the channels of each group, as the file named by the variable lists them."""
        if not self.any(name):
            return {}
        path = Path(self._set[name])
        example = "write lines such as `prod: [telegram, email]`"
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not YAML"
            self.errors.append(f"{name} names {path}, which cannot be read ({reason}): {example}")
            return {}
        if not isinstance(given, dict) or not given:
            self.errors.append(f"{name} names {path}, which does not map groups to channels: {example}")
            return {}
        return {
            str(group): self._channels(f"{path}: {group}", group, channels, built)
            for group, channels in given.items()
        }

    def _channels(
        self, where: str, group: object, channels: object, built: Mapping[str, Section]
    ) -> list[str]:
        if not isinstance(group, str) or not re.fullmatch(r"[\w. -]{1,100}", group):
            self.errors.append(
                f"{where}: the name of a group is text of letters, digits, spaces, dots, _ and -"
            )
        if not isinstance(channels, list) or not channels:
            self.errors.append(f"{where}: a list of channels is needed, such as [telegram, email]")
            return []
        known = [channel for channel, *_ in CHANNELS]
        for channel in channels:
            if channel not in known:
                near = difflib.get_close_matches(str(channel), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"the channels are {', '.join(known)}"
                self.errors.append(f"{where}: {channel!r} is not a channel: {hint}")
            elif channel not in built:
                self.errors.append(
                    f"{where}: {channel} is not configured: set its ALERT_{channel.upper()}_… variables"
                )
        return [str(channel) for channel in channels]

    def _unknown(self, name: str) -> None:
        if f"{name}_FILE" in VARIABLES:
            fix = f"secrets come from files only: put it into a file and set {name}_FILE to the path"
        elif near := difflib.get_close_matches(name, VARIABLES, n=1):
            fix = f"did you mean {near[0]}?"
        else:
            fix = "unset it, or see --help for the names"
        self.errors.append(f"{name} is not a variable of this program: {fix}")


def is_address(content: str) -> bool:
    """Return whether the content is one URL."""
    return re.fullmatch(r"https?://\S+", content) is not None


def is_word(content: str) -> bool:
    """Return whether the content is one word."""
    return re.fullmatch(r"\S+", content) is not None


MAILBOX = r"[^@\s,]+@[^@\s,]+"
AN_ADDRESS = "one URL that starts with https://"


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
    """Build the SMS receiver. Alertmanager gets the keys the way Amazon's tools do."""
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
    """Build the Telegram receiver. It sends plain text, so that no name can break the markup."""
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
    """Build the receiver of the Watchdog, which never resolves."""
    if not read.any("ALERT_WATCHDOG_URL", "ALERT_WATCHDOG_URL_FILE"):
        return None
    return {**_url(read, "ALERT_WATCHDOG_URL"), "send_resolved": False}


def _url(read: Reader, name: str) -> Section:
    if read.any(name) and read.any(f"{name}_FILE"):
        read.errors.append(f"{name} and {name}_FILE are both set: unset one of them")
    elif read.any(f"{name}_FILE"):
        return {"url_file": read.secret(f"{name}_FILE", is_address, AN_ADDRESS)}
    elif read.any(name):
        return {"url": read.address(name)}
    else:
        read.errors.append(
            f"{name} is not set, but ALERT_WEBHOOK_TOKEN_FILE needs it: set it, or {name}_FILE"
        )
    return {}


# The name of a channel in ALERT_ROUTES, its key in Alertmanager's configuration, the function that builds it, and the
# severities it receives. SMS and PagerDuty wake people, so they receive pages only. What is only worth a line in a chat
# is not worth an email.
CHANNELS: tuple[tuple[str, str, Callable[[Reader], Section | None], tuple[str, ...]], ...] = (
    ("email", "email_configs", email, ("page", "ticket")),
    ("sms", "sns_configs", sms, ("page",)),
    ("slack", "slack_configs", slack, ("page", "ticket", "info")),
    ("discord", "discord_configs", discord, ("page", "ticket", "info")),
    ("telegram", "telegram_configs", telegram, ("page", "ticket", "info")),
    ("pagerduty", "pagerduty_configs", pagerduty, ("page",)),
    ("webhook", "webhook_configs", webhook, ("page", "ticket", "info")),
)
SEVERITIES = ("page", "ticket", "info")
OTHERS = "default"


def render(
    environment: Mapping[str, str], *, templates: str = "templates/*.tmpl"
) -> tuple[Section, list[str]]:
    """Return the configuration and the errors; use the configuration only if there are no errors."""
    read = Reader(environment)
    base = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    built = {name: section for name, _, build, _ in CHANNELS if (section := build(read)) is not None}
    receivers = receivers_of(built)
    watching: Section = {"name": "watchdog"}
    heartbeat = watchdog(read)
    if heartbeat is not None:
        watching["webhook_configs"] = [heartbeat]
    routes, extra = routes_by_group(read, built)
    return {
        "global": base["global"],
        "templates": [templates],
        "route": with_routes(base["route"], routes),
        "inhibit_rules": base["inhibit_rules"],
        "receivers": [*receivers, watching, {"name": "nobody"}, *extra],
    }, read.errors


def receivers_of(built: Mapping[str, Section], suffix: str = "") -> list[Section]:
    """Return a receiver for each severity, with those of the channels that receive it."""
    receivers: dict[str, Section] = {severity: {} for severity in SEVERITIES}
    for name, key, _, severities in CHANNELS:
        for severity in severities:
            if name in built:
                # A copy each: PyYAML would write aliases otherwise, which are hard to read.
                receivers[severity][key] = [copy.deepcopy(built[name])]
    # If no channel receives a lesser severity, the channels of the next higher one do, except SMS.
    for lesser, greater in (("ticket", "page"), ("info", "ticket")):
        if not receivers[lesser]:
            receivers[lesser] = copy.deepcopy(receivers[greater])
            receivers[lesser].pop("sns_configs", None)
    return [{"name": severity + suffix, **channels} for severity, channels in receivers.items()]


def routes_by_group(read: Reader, built: Mapping[str, Section]) -> tuple[list[Section], list[Section]]:
    """Return the routes and the receivers of each line of ALERT_ROUTES."""
    routes: list[Section] = []
    receivers: list[Section] = []
    channels = read.routes("ALERT_ROUTES", built)
    for group, names in sorted(
        channels.items(), key=lambda item: item[0] == OTHERS
    ):  # the first match applies
        # Alerts about the monitoring itself have no name, and always go to every channel.
        matcher = 'name=~".+"' if group == OTHERS else f'group="{group}"'
        routes.append({"group": group, "matcher": matcher})
        receivers += receivers_of({name: built[name] for name in names if name in built}, f"-{group}")
    return routes, receivers


def with_routes(route: Section, groups: list[Section]) -> Section:
    """Return the routing tree with a route for each group below each severity; the settings are inherited."""
    if not groups:
        return route
    routes = copy.deepcopy(route["routes"])
    assert isinstance(routes, list)
    routes.append({"receiver": "ticket"})  # what matches no other severity
    for severity in routes:
        if severity["receiver"] in SEVERITIES:
            severity["routes"] = [
                {"matchers": [group["matcher"]], "receiver": f"{severity['receiver']}-{group['group']}"}
                for group in groups
            ] + severity.get("routes", [])
    return {**route, "routes": routes}


def loses_tickets(config: Section) -> bool:
    """Return whether pages have a channel but tickets have none."""
    receivers = config["receivers"]
    assert isinstance(receivers, list)
    page, ticket = receivers[0], receivers[1]
    return len(page) > 1 and len(ticket) == 1


HEADER = """\
# Generated by alertmanager/render.py from base.yml and the environment. Change those, and render again. docs/alerts.md
# explains the routes and how to configure each receiver. A receiver without a channel notifies nobody: its alerts
# appear in Alertmanager's own interface and in Grafana.
"""


def as_text(config: Section) -> str:
    """Return the configuration as YAML, below a comment that says where it comes from."""
    return HEADER + yaml.safe_dump(config, sort_keys=False, width=1000, allow_unicode=True)


def write(text: str, path: Path) -> None:
    """Replace the file atomically. It contains no secret, and everyone may read it."""
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
        description="Write Alertmanager's configuration from environment variables and secret files.",
        epilog=f"environment variables (a receiver is configured if its variables are set):\n{variables}\n\n"
        "exit status: 0 written, 1 the output cannot be written, 2 a variable, file or argument is wrong",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="FILE", help="where to write it (default: standard output)")
    parser.add_argument("--check", action="store_true", help="report errors and write nothing")
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
    config, errors = render(environment, templates=options.templates)
    output = Path(options.output) if options.output else None
    if output is not None and not options.check:
        # Path.glob takes no absolute pattern.
        found = glob.glob(options.templates, root_dir=output.parent)  # noqa: PTH207
        if not found:
            errors.append(
                f"--templates {options.templates} matches no file from {output.parent}: "
                "copy alertmanager/templates there, or give the path of its *.tmpl"
            )
    if errors:
        for error in errors:
            print(f"render.py: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if loses_tickets(config):
        print(
            "render.py: note: SMS is used for pages only, so nobody receives the tickets: configure another channel",
            file=sys.stderr,
        )
    if options.check:
        return EXIT_OK
    if output is None:
        sys.stdout.write(as_text(config))
        return EXIT_OK
    try:
        write(as_text(config), output)
    except OSError as problem:
        print(
            f"render.py: error: cannot write {output} ({problem.strerror}): create its directory, or make it "
            "writable for this user",
            file=sys.stderr,
        )
        return EXIT_CANNOT_WRITE
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
