"""Owns which pages may have a browser act here: our own, and those of the origins that were allowed.

A browser says by itself where a request comes from, and no page can change that. Whoever says nothing is no
browser, such as `curl`, and may act: to keep out more than pages is the business of passwords.
"""

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers

_ORIGIN: Final = re.compile(r"(?!http:.*:80$)(?!https:.*:443$)[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?")
_IPV6: Final = re.compile(r"https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")


def is_origin(text: str) -> bool:
    """Tell whether a browser could say ``text`` of one site: ``null`` is said of any page in a sandbox."""
    return any(form.fullmatch(text) for form in (_ORIGIN, _IPV6))


def may_act(headers: Headers, allowed: Collection[str]) -> bool:
    """Tell whether a request that changes something may be obeyed (as Go's CrossOriginProtection does).

    A proxy may have changed the Host: the word of the browser counts first, then our comparison.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin in allowed:
        return True
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == headers.get("host")
