"""``shoal init --flow``: prefect.yaml keeps what stands there, and nothing is half made."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from shoal.errors import InfrastructureError, UsageError
from shoal.flows import starting
from shoal.flows.errors import ScheduleError
from shoal.flows.starting import (
    PREFECT,
    TEMPLATES,
    check_name,
    check_schedule,
    entry,
    start_flow,
    with_deployment,
)
from shoal.project.folders import defaults

ADDED = entry("etl", "sales", "0 3 * * *")
FORMS = {
    "as shipped": (defaults() / PREFECT).read_text(),
    "nothing": "",
    "no deployments": "name: shop\n# and that is all\n",
    "none yet": "name: shop\ndeployments: []\npull: null\n",
    "an empty key": "deployments:\nname: shop\n",
    "not indented": "deployments:\n- name: a\n  tags: [x]\n# the end\nname: shop\n",
    "text over lines": "deployments:\n  - name: a\n    description: |\n      one\n      two\n\n# the end\n",
    "no line end": "deployments:\n    - {name: a, tags: [b]}  # mine",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_a_deployment_is_added_and_every_line_is_kept(text: str) -> None:
    new = with_deployment(text, ADDED)
    before, after = yaml.safe_load(text) or {}, yaml.safe_load(new)
    assert after.pop("deployments") == [*(before.pop("deployments", None) or []), ADDED]
    assert after == before
    kept = [line for line in text.splitlines() if line.strip() and "deployments:" not in line]
    following = iter(new.splitlines())
    assert all(line in following for line in kept), "in the same order"
    with pytest.raises(UsageError, match="already"):
        with_deployment(new, ADDED)


@pytest.mark.parametrize("text", ["[1]", "deployments: [{name: a}]", "deployments: {a: b}", "a: [", "- &x"])
def test_what_cannot_be_added_to_is_left_alone_with_what_to_paste(text: str) -> None:
    with pytest.raises(UsageError):
        with_deployment(text, ADDED)


def test_a_flow_is_made_whole_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PREFECT).write_text(FORMS["as shipped"])
    start_flow("etl", "sales", tmp_path, None, dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == [PREFECT]
    assert start_flow("etl", "sales", tmp_path, None) == ["flows/sales.py", PREFECT]
    made = (tmp_path / "flows" / "sales.py").read_text()
    there = (tmp_path / PREFECT).read_text()
    with pytest.raises(UsageError, match="is there already"):
        start_flow("etl", "sales", tmp_path, None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(starting, "replace_file", full)
    with pytest.raises(InfrastructureError, match="nothing was changed"):
        start_flow("etl", "returns", tmp_path, None)
    assert [path.name for path in (tmp_path / "flows").iterdir()] == ["sales.py"]
    assert (made, there) == ((tmp_path / "flows" / "sales.py").read_text(), (tmp_path / PREFECT).read_text())


@pytest.mark.parametrize("kind", TEMPLATES)
def test_what_is_written_is_python_of_lines_that_fit(kind: str) -> None:
    for path, form in TEMPLATES[kind].items():
        text = form.format(name="sales")
        if path.endswith(".py"):
            ast.parse(text)
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    "name", ["", "Sales", "1st", "a-b", "../x", "class", "pandas", "json", "shoal", "x" * 41]
)
def test_a_name_that_would_be_in_the_way_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@pytest.mark.slow
def test_a_schedule_that_never_fires_is_refused() -> None:
    for never in ("0 0 30 2 *", "0 0 31 4,6 *", "61 * * * *", "often", ""):
        with pytest.raises(ScheduleError):
            check_schedule(never)
    for fires in ("0 3 * * *", "0 0 29 2 *", "@daily"):
        check_schedule(fires)
