"""Names of clusters: one rule, wherever a name is given.

Why it exists: a name is pasted into shells, is part of file names, and becomes the name of an object in
Kubernetes, so it is a DNS label (RFC 1123), and short enough for what is put behind it there.

What it must not do: know anything about clusters; it is below everything.
"""

from __future__ import annotations

import re
import shlex
import unicodedata

from shoal.errors import UsageError

LONGEST = 40  # characters; a label has 63, and pods get a suffix
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def checked(name: str) -> str:
    """``name``, if it can be a cluster's; else UsageError with one that can."""
    if isinstance(name, str) and _LABEL.fullmatch(name) and len(name) <= LONGEST:
        return name
    instead = suggested(str(name))
    hint = "Use lower-case letters, digits and dashes"
    raise UsageError(
        f"{name!r} cannot be a cluster's name: it has to be a DNS label of at most {LONGEST} characters",
        hint=f"{hint}, such as {instead!r}." if instead else f"{hint}.",
        name=name,
        suggested=instead,
    )


def suggested(text: str) -> str:
    """The name that is nearest to ``text``; empty where nothing of it can be kept.

    >>> suggested("My Cluster_2")
    'my-cluster-2'
    """
    ascii_ = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_.lower())[:LONGEST].strip("-")


def command(verb: str, *names: str) -> str:
    """``shoal down nightly``, to be pasted: names of before the rule are quoted, and never read as options."""
    dashes = ["--"] if any(name.startswith("-") for name in names) else []
    return " ".join(["shoal", verb, *dashes, *map(shlex.quote, names)])
