"""What a native engineer stumbles over does not come back: phrases that were replaced, wherever people read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import shoal

PACKAGE = Path(shoal.__file__).parent
ROOT = PACKAGE.parents[1]
# Written by `make soak` and `make bench`, from names of tests.
MEASURED = {"soak.md", "benchmarks.md"}

BANNED = {  # what not to say: what to say
    r"\bmend(s|ed|ing)?\b(?![\"`])": "fix",  # but for the key in JSON, which 0.1.0 had
    r"without a word|in vain|\banew\b": "silently, unexpectedly; to no avail, timed out; again",
    r"longest li(fe|ves)": "maximum lifetime",
    r"(of|from) the life of a cluster|live longer": "lifetime",
    r"\blives? on\b(?! (this|the|a|one) )": "keeps running",
    r"asked (for )?wrongly": "invalid request",
    r"place \d+ in the queue|place in the queue": "position",
    r"waits? (its|for its) turn": "queued",
    r"(not|never|last|was) heard of": "no heartbeat, unresponsive",
    r"Nobody can be asked|answers nobody": "not a terminal; does not answer",
    r"is pulled here": "no image needed",
    r"\bstands? on\b": "depends on",
    r"fullest": "peak worker memory",
    r"template \S+ says so\b|as you asked\b": "from template, as requested",
    r"things are wrong": "invalid request (3 problems)",
    r"No clusters run\b": "no clusters are running",
    r"(?<!there )(?<!: )\bis no (?!(other|longer|more|less|fewer|better|worse|reason)\b)[\w(`]": "is not a",
    r"Whether it fits is not known": "could not check quota",
    r"\ba Java \d": "Java 17",
    r"\bdo without it\b": "run without it",
}


def files() -> list[Path]:
    found = [*PACKAGE.rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for folder in ("clusters", "policies", "flows", "images"):
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in found if path.name not in MEASURED and path.suffix != ".pyc"]


@pytest.mark.parametrize("banned", BANNED, ids=BANNED.values())
def test_a_phrase_that_was_replaced_does_not_come_back(banned: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if re.search(banned, line, re.IGNORECASE) and not (banned.startswith(r"\bmend") and '"mend"' in line)
    ]
    assert found == [], f"better: {BANNED[banned]}"


def test_the_phrases_are_found() -> None:
    """Of each one example, so that a pattern which matches nothing is noticed."""
    wrong = """it says how to mend it; it ended without a word; its longest life; let it live longer; it lives on;
    asked wrongly; place 2 in the queue; it waits its turn; it was not heard of; Nobody can be asked here; none is
    pulled here; what Shoal stands on; the fullest worker; from template etl says so; 3 things are
    wrong; No clusters run.; int is no frame; Whether it fits is not known; it needs a Java 17; or do without it"""
    text = " ".join(wrong.split())
    assert [banned for banned in BANNED if not re.search(banned, text, re.IGNORECASE)] == []
