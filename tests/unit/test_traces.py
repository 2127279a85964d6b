"""An uncaught error of a submitted script: its own frames, those of what it came from, and nothing lost with them."""

from __future__ import annotations

import sys

import pytest

import shoal
from shoal.client import traces
from shoal.errors import UsageError
from shoal.units import Bytes


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.delenv("SHOAL_LOG", raising=False)


def caught(code: str) -> BaseException:
    """What ``code``, a script of a user's, ends with."""
    try:
        exec(compile(code, "/home/user/script.py", "exec"), {})
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return error
    raise AssertionError("it did not raise")


def files(text: str) -> list[str]:
    return [line.split('"')[1] for line in text.splitlines() if line.startswith("  File ")]


def test_frames_of_the_inside_are_left_out_and_counted() -> None:
    text = traces.shortened(caught("from shoal.units import Bytes\nBytes.parse('four')"))
    assert files(text) == ["/home/user/script.py"]
    assert "four" in text
    assert "left out; SHOAL_LOG=debug shows all" in text


def test_an_error_from_elsewhere_is_as_python_writes_it() -> None:
    text = traces.shortened(caught("import json\njson.loads('{')"))
    assert files(text)[0] == "/home/user/script.py"
    assert any(file.endswith("json/decoder.py") for file in files(text))
    assert "left out" not in text


def test_what_it_came_from_is_told() -> None:
    code = (
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise RuntimeError('no ratio') from error"
    )
    text = traces.shortened(caught(code))
    assert "ZeroDivisionError: division by zero" in text
    assert "The above exception was the direct cause" in text
    assert text.rstrip().endswith("RuntimeError: no ratio")


def test_an_error_of_the_inside_alone_is_shown_whole() -> None:
    try:
        Bytes.parse("four")
    except UsageError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        text = traces.shortened(error)
    assert any(file.endswith("units.py") for file in files(text))
    assert "left out" not in text


def test_a_hook_of_somebody_elses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(*_: object) -> None: ...

    monkeypatch.setattr(sys, "excepthook", theirs)
    traces.shorten()
    assert sys.excepthook is theirs


def test_all_is_shown_to_who_debugs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_LOG", "debug")
    traces.shorten()
    assert sys.excepthook is sys.__excepthook__
    monkeypatch.delenv("SHOAL_LOG")
    traces.shorten()
    assert sys.excepthook is not sys.__excepthook__


def test_a_refused_cluster_is_told_below_the_line_that_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines() -> list[str]:
        with pytest.raises(UsageError) as caught:
            shoal.dask("etl", n_workers=2)
        trace, found = caught.value.__traceback__, []
        while trace is not None:
            found.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        return found

    assert lines() == ["lines", "dask"]
    monkeypatch.setenv("SHOAL_LOG", "debug")
    assert len(lines()) > 4
