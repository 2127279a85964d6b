"""What `make docs` changes on its way from docstrings to pages."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:func|class|meth|mod|attr):(?=<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name what they mean by reStructuredText's roles; a page shows the name alone."""
    return _ROLE.sub("", html)
