"""Lets pages of the documentation link to files of the repository that are not pages: a hook of MkDocs."""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<=\]\()(?P<target>\.\./[^)#\s]*)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: object) -> str:
    """Point each relative link that leaves docs/ to the file on the forge."""

    def outside(link: re.Match[str]) -> str:
        path = posixpath.normpath(
            posixpath.join("docs", posixpath.dirname(page.file.src_uri), link["target"])
        )
        return link["target"] if path.startswith("docs/") else f"{config.repo_url}/blob/main/{path}"

    return _LINK.sub(outside, markdown)
