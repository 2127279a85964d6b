"""Who uses this machine, as far as it says so itself.

Why it exists: quotas are a person's, and a laptop knows its person by the login name alone.
"""

from __future__ import annotations

import os


def login() -> str:
    """``SHOAL_USER``, else the login name. Cooperation, not proof: the docs say so."""
    if chosen := os.environ.get("SHOAL_USER"):
        return chosen
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry in the user database, as in some containers
        return f"uid-{os.getuid()}"
