"""The status page, and the ES module for front ends of your own that it is built on: the files in ``static``.

The page shows what /events reports. Its Content-Security-Policy allows its one style and its one script by their
hashes, /client.js and requests to its own origin, and nothing else. No text is ever parsed as HTML.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from connection_exporter import __version__

_SCRIPTS: Final = ("format.js", "drawing.js", "card.js", "incidents.js", "page.js")
_IMPORT: Final = 'import { connect, ExporterError } from "./client.js";'


def _read(name: str) -> str:
    return files("connection_exporter.web").joinpath("static", name).read_text("utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _assembled() -> tuple[str, Mapping[str, str]]:
    css = "\n" + _read("page.css")
    js = "\n".join(("", _IMPORT, *(_read(name) for name in _SCRIPTS)))
    page = _read("page.html").replace("@css@", css).replace("@js@", js)
    page = page.replace("@version@", __version__).replace("@metrics@", "metrics")
    policy = (
        "default-src 'none'",
        f"script-src 'self' {_hash(js)}",
        f"style-src {_hash(css)}",
        "connect-src 'self'",
        "img-src data:",  # the icon of the tab
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return page, {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "; ".join(policy),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


PAGE, PAGE_HEADERS = _assembled()

CLIENT_MODULE: Final = _read("client.js")
CLIENT_TYPES: Final = _read("client.d.ts")
