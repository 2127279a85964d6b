"""The pure parts: names that follow from a flow run's id, and what to do about what an attempt left."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

import shoal
from shoal.model.cluster import Cluster, Reason, State
from shoal.model.codec import plain, read
from shoal.model.workload import Engine, Group, Plan, Size, Timeouts, Workload
from shoal.prefect.leftovers import Takeover, judge
from shoal.prefect.runs import FLOW_RUN, Run, cluster_name, current
from shoal.units import Bytes, Seconds

SIZE = Size(1, Bytes(10**9))
PLAN = Plan(
    template="etl",
    engine=Engine.DASK,
    target="local",
    head=SIZE,
    groups=(Group("default", 2, 2, 2, SIZE, SIZE),),
    timeouts=Timeouts(Seconds(60), Seconds(60), Seconds(60)),
    reasons={"workers": "as you asked"},
)


def cluster(state: State, plan: Plan = PLAN, run: str = "this") -> Cluster:
    workload = Workload("etl")
    tags = {FLOW_RUN: run}
    return Cluster("c", "etl-1", "alice", None, workload, plan, state, Reason.SERVING, "", 0, 0, tags=tags)


def test_a_name_is_the_same_for_every_attempt_and_another_for_all_else() -> None:
    # Ids as Prefect makes them: the first 48 bits are the time, here the same.
    one, other = "0192f1c2-7a40-7000-8000-000000000001", "0192f1c2-7a40-7000-8000-000000000002"
    assert cluster_name(one, "etl") == cluster_name(one, "etl")
    names = {
        cluster_name(run, role, task)
        for run in (one, other)
        for role in ("etl", "read-back")
        for task in ("", "clean-1a2b")
    }
    assert len(names) == 8
    assert all(len(name) <= 40 and name == name.lower() for name in names)
    assert cluster_name(one, "etl").startswith("etl-")


@pytest.mark.parametrize("role", ["", "Etl", "1st", "a b", "a-", "-a", "a/b", "x" * 30])
def test_a_role_that_is_no_name_is_refused_with_how_to_write_it(role: str) -> None:
    with pytest.raises(shoal.errors.UsageError, match="Lower-case letters"):
        cluster_name("id", role)


def test_tags_say_which_run_and_leave_out_what_is_not_known() -> None:
    assert Run("id", "nightly", task_key="clean", attempt=2).tags == {
        "prefect.flow-run-id": "id",
        "prefect.flow": "nightly",
        "prefect.task": "clean",
        "prefect.attempt": "2",
    }


def test_outside_of_prefect_there_is_no_run() -> None:
    assert current() is None


@pytest.mark.parametrize(
    ("found", "clients", "verdict"),
    [
        pytest.param(None, 0, Takeover.START, id="nothing was left"),
        pytest.param(cluster(State.STOPPED), 0, Takeover.START, id="it has ended"),
        pytest.param(cluster(State.FAILED), 0, Takeover.START, id="it has failed"),
        pytest.param(cluster(State.STOPPING), 0, Takeover.AWAIT, id="it is ending"),
        pytest.param(cluster(State.READY), 0, Takeover.ADOPT, id="it is what would be started"),
        pytest.param(cluster(State.STARTING), 0, Takeover.ADOPT, id="it is about to be"),
        pytest.param(cluster(State.READY), 1, Takeover.REPLACE, id="another attempt still uses it"),
        pytest.param(cluster(State.READY, run="other"), 0, Takeover.FOREIGN, id="it is not of this run"),
        pytest.param(cluster(State.STOPPED, run="other"), 0, Takeover.START, id="it was not, and has ended"),
        pytest.param(
            cluster(State.READY, replace(PLAN, groups=(replace(PLAN.groups[0], count=1),))),
            0,
            Takeover.ADOPT,
            id="it has another number of workers just now",
        ),
        pytest.param(
            cluster(State.READY, replace(PLAN, groups=(replace(PLAN.groups[0], maximum=3),))),
            0,
            Takeover.REPLACE,
            id="it may have more workers",
        ),
        pytest.param(
            cluster(State.READY, replace(PLAN, engine=Engine.SPARK)), 0, Takeover.REPLACE, id="other engine"
        ),
        pytest.param(
            cluster(State.READY, replace(PLAN, packages=("polars",))),
            0,
            Takeover.REPLACE,
            id="other packages",
        ),
        pytest.param(
            cluster(State.READY, replace(PLAN, reasons={"workers": "template says so"})),
            0,
            Takeover.ADOPT,
            id="only said differently",
        ),
    ],
)
def test_what_is_done_about_what_an_attempt_left(
    found: Cluster | None, clients: int, verdict: Takeover
) -> None:
    assert judge(found, PLAN, clients, "this") is verdict


def test_a_plan_that_went_through_the_store_is_still_the_same() -> None:
    stored = read(Plan, plain(PLAN))
    assert judge(cluster(State.READY, stored), PLAN, 0, "this") is Takeover.ADOPT


def test_without_prefect_the_error_names_the_extra_and_is_an_import_error() -> None:
    code = """
import sys
sys.modules["prefect"] = None
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "prefect":
            raise ModuleNotFoundError("No module named 'prefect'", name="prefect")
sys.meta_path.insert(0, Finder()); del sys.modules["prefect"]
try:
    import shoal.prefect
except ImportError as error:
    print(type(error).__name__, error.values["extra"], error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("MissingExtraError prefect shoal.prefect needs Prefect")
    assert "pip install 'shoal[prefect]'" in done.stdout
