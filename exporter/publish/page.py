"""Owns the status page: one self-contained document, put together at import from the files in ``static``.

It draws what /events tells. Its Content-Security-Policy allows the one style and the one script in it by
their hashes, connections to where it came from, and nothing else; no text is ever parsed as HTML.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

_SCRIPTS: Final = ("format.js", "stream.js", "drawing.js", "card.js", "asking.js", "page.js")
"""In the order in which they need each other."""


def _read(name: str) -> str:
    return files("exporter.publish").joinpath("static", name).read_text("utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _assembled() -> tuple[str, Mapping[str, str]]:
    css = "\n" + _read("page.css")
    js = '\n"use strict";\n' + "\n".join(_read(name) for name in _SCRIPTS)
    page = _read("page.html").replace("@css@", css).replace("@js@", js)
    policy = (
        "default-src 'none'",
        f"script-src {_hash(js)}",
        f"style-src {_hash(css)}",
        "connect-src 'self'",
        "img-src data:",  # the sign in the tab
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
