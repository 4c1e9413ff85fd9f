"""Owns what a request's headers allow: which pages may change something, which format the client prefers."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from starlette.datastructures import Headers, QueryParams

_ORIGIN: Final = r"(?!http:.*:80$)(?!https:.*:443$)[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?"
_IPV6: Final = r"https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?"
_QUALITY: Final = re.compile(r"0(\.[0-9]*)?|1(\.0*)?")


def is_origin(text: str) -> bool:
    """Return whether ``text`` is the origin of one site, as browsers write it: ``null`` is that of any sandbox."""
    return any(re.fullmatch(form, text) for form in (_ORIGIN, _IPV6))


def may_act(headers: Headers, allowed: Collection[str]) -> bool:
    """Return whether to obey a request that changes something (the rules of Go's CrossOriginProtection).

    A browser says where a request comes from, and no page can change that: our own pages and those of the ``allowed``
    origins may act. A request that says nothing is not from a browser; passwords are the protection against those.
    A proxy may have changed the Host, so Sec-Fetch-Site counts before our own comparison.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin in allowed:
        return True
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def wrong_parameter(query: QueryParams, known: Collection[str]) -> str | None:
    """Return what is wrong with a query: a misspelled parameter would otherwise mean the same as none."""
    for name in query:
        if name not in known:
            return f"unknown parameter {name[:40]!r}; known: {', '.join(known)}"
        if len(query.getlist(name)) > 1:
            return f"the parameter {name} is given more than once: keep one"
    return None


def wants_openmetrics(accept: str) -> bool:
    """Return whether the client names OpenMetrics 1.0 in Accept, and does not prefer text to it.

    prometheus_client's `choose_encoder` ignores the q-values (RFC 9110, section 12.4.2), so it is not used.
    """
    openmetrics, text = 0.0, 0.0
    for name, parameters, quality in _weighted(accept):
        version = parameters.get("version", "").strip('"')
        if name == "application/openmetrics-text" and version in ("", "1.0.0"):
            openmetrics = max(openmetrics, quality)
        elif name in ("text/plain", "text/*", "*/*") and version in ("", "0.0.4"):
            text = max(text, quality)
    return openmetrics > 0 and openmetrics >= text


def content_coding(accept_encoding: str, offered: Collection[str]) -> str:
    """Return which of the ``offered`` codings the client prefers: ``identity`` if it accepts or prefers none.

    Of two with the same quality, it is the one that the client names first. ``*`` names none, so it asks
    for no compression.
    """
    qualities: dict[str, float] = {}
    for name, _, quality in _weighted(accept_encoding):
        qualities.setdefault("gzip" if name == "x-gzip" else name, quality)
    best = max((name for name in qualities if name in offered), key=qualities.__getitem__, default="identity")
    wanted = 0 < qualities.get(best, 0.0) >= qualities.get("identity", 0.0)
    return best if wanted else "identity"


def wants_json(accept: str) -> bool:
    """Return whether the client names JSON in Accept, and does not prefer YAML to it."""
    json, yaml = 0.0, 0.0
    for name, _, quality in _weighted(accept):
        if name.endswith(("/json", "+json")):
            json = max(json, quality)
        elif "yaml" in name:
            yaml = max(yaml, quality)
    return json > 0 and json >= yaml


def _weighted(header: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Yield name, parameters and quality of each element; a quality that is not one counts as 1."""
    for element in header.lower().split(","):
        name, *rest = (part.strip() for part in element.split(";"))
        parameters = {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in rest)}
        quality = parameters.pop("q", "1")
        if name:
            yield name, parameters, float(quality) if _QUALITY.fullmatch(quality) else 1.0
