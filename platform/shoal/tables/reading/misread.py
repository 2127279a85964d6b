"""Where a text filter stops making sense, in one line.

Why it exists: PyIceberg's parser tells of a mistake by its whole grammar, two pages of it. This follows the same
grammar to the first word that does not belong, once the parser has refused. What it must not do: read filters;
what is right is the parser's to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKENS = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*')
    | (?P<open>'.*)
    | (?P<quoted>"[^"]*")
    | (?P<exponent>[+-]?(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+)
    | (?P<real>[+-]?\d+\.\d*)
    | (?P<whole>[+-]?\d+)
    | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
    | (?P<op><=|<>|<|>=|>|==|=|!=)
    | (?P<other>\S)
    )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"and", "or", "not", "is", "in", "null", "nan", "like", "between", "true", "false"}
_VALUES = "a value (40, 1.5, 'AA', true)"
_START = 'a column, "not" or "("'
_COMPARISON = "a comparison (=, !=, <, <=, >, >=, in, not in, like, between, is null)"

EXAMPLE = "Write it as in SQL: \"delay > 0 and carrier in ('AA', 'UA')\", text in single quotes."


@dataclass(frozen=True)
class Mistake:
    """The first word of a filter that does not belong. ``at``: its character, from 1."""

    at: int
    found: str
    expected: str
    hint: str = EXAMPLE


class _Stop(Exception):
    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def lower(self) -> str:
        return self.text.lower() if self.kind == "word" else self.text


def find_mistake(text: str) -> Mistake | None:
    """The first mistake of a filter that could not be read; ``None`` if this sees none either."""
    reader = _Reader(text)
    try:
        reader.alternatives()
        if reader.now.kind != "end":
            reader.stop('"and", "or" or the end')
    except _Stop as stop:
        return stop.mistake
    except RecursionError:
        return None
    return None


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [
            _Token(found.lastgroup or "other", found[found.lastgroup or 0], found.start(found.lastgroup or 0))
            for found in _TOKENS.finditer(text)
        ]
        self._tokens.append(_Token("end", "the end", len(text)))
        self._next = 0

    @property
    def now(self) -> _Token:
        return self._tokens[self._next]

    @property
    def then(self) -> _Token:
        return self._tokens[min(self._next + 1, len(self._tokens) - 1)]

    def stop(self, expected: str, hint: str = "") -> None:
        now = self.now
        found = (
            now.text
            if now.kind == "end"
            else repr(now.text if len(now.text) < 40 else now.text[:36] + " ...")
        )
        if now.kind == "open":
            expected, hint = (
                "a text that ends",
                "Close it with a single quote; one inside is written twice: 'it''s'.",
            )
        elif now.kind == "exponent":
            hint = "Write numbers in digits: 1000, not 1e3."
        raise _Stop(Mistake(now.at + 1, found, expected, hint or EXAMPLE))

    def takes(self, *words: str) -> bool:
        if self.now.kind in ("word", "op", "other") and self.now.lower in words:
            self._next += 1
            return True
        return False

    def alternatives(self) -> None:
        self.conjunction()
        while self.takes("or"):
            self.conjunction()

    def conjunction(self) -> None:
        self.condition()
        while self.takes("and"):
            self.condition()

    def condition(self) -> None:
        if self.takes("not"):
            self.condition()
        elif self.takes("("):
            self.alternatives()
            if not self.takes(")"):
                self.stop('"and", "or" or ")"')
        else:
            self.predicate()

    def predicate(self) -> None:
        if self.now.kind in ("text", "real", "whole", "exponent", "open") or self.now.lower in (
            "true",
            "false",
        ):
            alone = self.now.lower in ("true", "false")
            self.value()
            if self.now.kind == "op":
                self._next += 1
                self.column()
            elif not alone:
                self.stop("a comparison (=, !=, <, <=, >, >=)")
            return
        if self.now.lower == "select" and self.then.kind != "op" and self.then.lower not in _WORDS:
            self.stop(_START, 'Give what would follow "where": "delay > 0".')
        self.column()
        negated = self.takes("not")
        if self.takes("in"):
            self.values()
        elif self.takes("like"):
            if self.now.kind != "text":
                self.stop("a text in single quotes ('AB%')")
            self._next += 1
        elif negated:
            self.stop('"in" or "like"')
        elif self.takes("is"):
            self.takes("not")
            if not self.takes("null", "nan"):
                self.stop('"null", "not null", "nan" or "not nan"')
        elif self.takes("between"):
            self.value()
            if not self.takes("and"):
                self.stop('"and" and a second value')
            self.value()
        elif self.now.kind == "op":
            self._next += 1
            self.value()
        else:
            self.stop(
                _COMPARISON,
                "Filters do not support functions: read the column, and filter the frame."
                if self.now.text == "("
                else "",
            )

    def column(self) -> None:
        while True:
            name = self.now
            if (
                name.kind == "quoted"
                and self.then.kind == "quoted"
                and self.then.at == name.at + len(name.text)
            ):
                tuples = name.text[1:-1] + self.then.text[:-1]
                self.stop(
                    "a column without quotes in its name", f"Use the form of tuples: [({tuples!r}, '==', 1)]."
                )
            if name.kind == "quoted" and "." in name.text:
                bare = name.text[1:-1].split(".")
                words = [w if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", w) else f'"{w}"' for w in bare]
                self.stop("a column whose dots are outside the quotes", f"Write it as {'.'.join(words)}.")
            if name.text == "`":
                self.stop(_START, 'Columns are quoted with double quotes: "a column" = 1.')
            if name.kind == "quoted" or (name.kind == "word" and name.lower not in _WORDS):
                self._next += 1
            else:
                self.stop(_START)
            if not self.takes("."):
                return

    def values(self) -> None:
        if not self.takes("("):
            self.stop("values in parentheses (1, 2)")
        first = self.now.kind
        self.value()
        while self.takes(","):
            if self.now.kind != first and {first, self.now.kind} == {"real", "whole"}:
                self.stop(
                    "a value written as the first", "Write all of them alike: (1.0, 2.5), not (1, 2.5)."
                )
            kind = self.now.kind
            self.value()
            if kind != first:
                self._next -= 1
                self.stop("a value of the same kind as the first")
        if not self.takes(")"):
            self.stop('"," or ")"')

    def value(self) -> None:
        now = self.now
        if now.kind == "text" and ("\n" in now.text or "\r" in now.text):
            inside = now.text[1:-1].replace("''", "'")
            self.stop(
                "a text without line breaks", f"Use the form of tuples: [('column', '==', {inside!r})]."
            )
        if now.kind in ("text", "real", "whole") or now.lower in ("true", "false"):
            self._next += 1
            return
        hint = ""
        if now.kind == "quoted":
            hint = f"Text is in single quotes, columns may be in double ones: '{now.text[1:-1]}'."
        elif now.lower in ("null", "nan"):
            hint = f"Nothing is equal to it; ask with: is {now.lower}, or is not {now.lower}."
        elif now.kind == "word" and self.then.kind == "text":
            hint = "Times and dates are texts, such as '2026-01-02 00:00:00'."
        elif now.kind == "word" and now.lower not in _WORDS:
            hint = "Text is in single quotes; two columns are compared on the frame: df[df.a > df.b]."
        self.stop(_VALUES, hint)
