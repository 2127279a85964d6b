"""A workload and a template become a plan: every number, and why."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import NeverFitsError, NotFoundError, WorkloadError
from shoal.model.codec import plain, read
from shoal.model.workload import Engine, Plan, Size, Workload
from shoal.planning.asking import ask
from shoal.planning.sizing import lowered, plan
from shoal.project.loading import Project
from shoal.project.policy import Limit, Limits
from shoal.quota.account import amounts, real
from shoal.quota.admission import with_workers
from shoal.units import Bytes, Seconds

Planned = Callable[..., Plan]
NO_LIMITS = Limits("root", "none", None, 1.0, {}, {})


def workers(of: Plan) -> tuple[int, int, int]:
    (group,) = of.groups
    return group.minimum, group.count, group.maximum


@pytest.mark.parametrize(
    ("asked", "expected", "why"),
    [
        ({}, (2, 2, 10), "2 to 10 workers: from template etl; starts with 2"),
        ({"workers": 3}, (3, 3, 3), "3 workers: as requested"),
        ({"workers": "3-5"}, (3, 3, 5), "3 to 5 workers: as requested; starts with 3"),
        # 25 GB x 3 = 75 GB in memory: 6 workers of 14 GB.
        ({"data": "25 GB"}, (2, 6, 10), "75 GB in memory (x 3), so 6 workers of 14 GB"),
        # Memory enough for one; 15 min at 40 MB/s on 1 core is 36 GB.
        (
            {"data": "100 GB", "memory": "400 GB", "cores": 1},
            (2, 3, 10),
            "at 40 MB/s per core takes 3 workers",
        ),
        ({"data": "1 MB"}, (2, 2, 10), "starts with 2"),
        ({"data": "1 PB"}, (2, 10, 10), "with 10 it takes longer and spills to scratch disk"),
        ({"data": "25 GB", "workers": 3}, (3, 3, 3), "3 workers: as requested (25 GB of input takes 75 GB"),
    ],
)
def test_how_many_workers(
    planned: Planned, asked: dict[str, Any], expected: tuple[int, ...], why: str
) -> None:
    result = planned("etl", limits=NO_LIMITS, **asked)
    assert workers(result) == expected
    assert why in result.reasons["workers"]


def test_a_default_over_the_tier_is_lowered_and_says_so(planned: Planned) -> None:
    result = planned("etl")
    assert workers(result) == (2, 2, 3)
    assert (
        "at most 3 workers, since tier standard (policies/tiers.yaml:3) gives 3 workers per cluster"
        in (result.reasons["workers"])
    )


def test_a_lifetime_over_the_tier_is_lowered_and_says_what_was(on_kubernetes: Project) -> None:
    limits = on_kubernetes.policy.limits_of("somebody")
    four = {"duration": Limit(Seconds(4 * 3600), "tier standard")}
    template = on_kubernetes.template("ml-training")
    trained = plan(
        ask("ml-training"),
        template,
        replace(limits, per_cluster={**limits.per_cluster, **four}),
        on_kubernetes.target,
    )
    assert trained.timeouts.max == trained.may_last == Seconds(4 * 3600)
    assert (
        "maximum lifetime lowered to 4 h, since tier standard allows no more" in trained.reasons["timeouts"]
    )
    assert any(said.startswith("maximum lifetime lowered") for said in lowered(trained))


def test_a_plan_of_before_may_last_was_noted_is_still_read(planned: Planned) -> None:
    new = planned("etl")
    old = {key: value for key, value in plain(new).items() if key != "may_last"}
    assert read(Plan, old) == replace(new, may_last=None)


def test_every_shipped_template_leaves_room_to_extend(planned: Planned) -> None:
    for template in ("etl", "analytics", "ml-training", "workbench"):
        found = planned(template)
        assert found.may_last is not None
        assert found.may_last >= found.timeouts.max + 3600, template


def test_a_bigger_worker_leaves_room_for_fewer(planned: Planned) -> None:
    assert workers(planned("etl", memory="20 GB")) == (2, 2, 2)
    assert workers(planned("etl", memory="30 GB")) == (1, 1, 1)


def test_an_upper_bound_asked_for_is_lowered_but_a_lower_one_is_refused(planned: Planned) -> None:
    assert workers(planned("etl", workers="2-10")) == (2, 2, 3)
    with pytest.raises(NeverFitsError, match="etl requests 4 workers; the limit per cluster is 3 workers"):
        planned("etl", workers="4-10")


def test_what_was_asked_for_over_the_tier_is_refused_with_every_limit(planned: Planned) -> None:
    with pytest.raises(NeverFitsError) as caught:
        planned("etl", workers=4, gpu=1, max_duration="13 h")
    what = {shortage.what: shortage for shortage in caught.value.values["shortages"]}
    assert set(what) == {"workers", "memory", "gpus", "duration"}
    assert all("tier standard (policies/tiers.yaml:3)" in shortage.source for shortage in what.values())
    assert (what["memory"].asked, what["memory"].limit) == (56e9, 42e9)
    assert "you may have no GPUs" in str(caught.value)


def test_one_worker_too_big_for_the_tier_is_refused(planned: Planned) -> None:
    with pytest.raises(NeverFitsError, match="requests 50 GB of memory; your limit is 42 GB of memory"):
        planned("etl", memory="50 GB")


def test_overrides_win_even_when_they_are_zero(planned: Planned, on_kubernetes: Project) -> None:
    template = on_kubernetes.template("etl")
    assert template.workers.spot == 0.5
    limits = on_kubernetes.policy.limits_of("somebody")
    result = plan(ask("etl", spot=0, gpu=0, cores=1), template, limits, on_kubernetes.target)
    assert result.groups[0].spot == 0.0
    assert result.groups[0].size.cores == 1
    assert result.reasons["spot"].endswith("as requested")


def test_a_laptop_gives_less_than_quota_counts(planned: Planned) -> None:
    result = planned("etl", workers=3)
    (group,) = result.groups
    assert group.size == Size(4, Bytes.parse("14 GB"))
    assert group.there == Size(1, Bytes.parse("1 GB"))
    assert result.head_there == Size(1, Bytes.parse("1 GB"))
    assert amounts(result).memory == Bytes.parse("42 GB")
    assert real(result).memory == Bytes.parse("4 GB")
    assert "quota is charged for the requested size" in result.reasons["there"]
    assert planned("etl", memory="500 MB").groups[0].there.memory == Bytes.parse("500 MB")


def test_spark_on_a_laptop_is_one_jvm_of_fixed_size(planned: Planned) -> None:
    result = planned("analytics", workers=2)
    assert result.engine is Engine.SPARK
    assert result.conf["spark.master"] == "local[2]"
    # (1 GB head + 2 x 1 GB) / 1.4 of heap
    assert result.conf["spark.driver.memory"] == f"{int(3e9 / 1.4 / 2**20)}m"
    assert workers(planned("analytics")) == (2, 2, 2)
    assert workers(planned("analytics", workers="1-3")) == (3, 3, 3)  # it reserves its maximum


def test_spark_on_kubernetes_may_grow(on_kubernetes: Project) -> None:
    limits = on_kubernetes.policy.limits_of("somebody")
    result = plan(ask("analytics"), on_kubernetes.template("analytics"), limits, on_kubernetes.target)
    assert workers(result) == (2, 2, 3)
    assert "spark.master" not in result.conf


def test_the_price_is_of_what_really_runs_and_unknown_is_not_zero(
    planned: Planned, on_kubernetes: Project
) -> None:
    assert planned("etl").price_per_hour is None
    assert "hours are counted instead" in planned("etl").reasons["price"]
    limits = on_kubernetes.policy.limits_of("somebody")
    template, target = on_kubernetes.template("etl"), on_kubernetes.target
    price = plan(ask("etl", workers=2, spot=0), template, limits, target).price_per_hour
    assert price is not None
    # 10 cores at 0.031611 and 36 GB (33.53 GiB) at 0.004237
    assert float(price.amount) == pytest.approx(10 * 0.031611 + 36e9 / 2**30 * 0.004237)
    three = plan(ask("etl", workers=3, spot=0), template, limits, target)
    two = with_workers(three, 2)
    assert two.price_per_hour == price, "a worker less costs as if it had never been asked for"
    spot = plan(ask("etl", workers=2, spot=1.0), template, limits, target).price_per_hour
    head = 2 * 0.031611 + 8e9 / 2**30 * 0.004237
    assert spot is not None
    assert float(spot.amount) - head == pytest.approx((float(price.amount) - head) * 0.21)


def test_every_number_has_its_reason(planned: Planned) -> None:
    reasons = planned("etl").reasons
    named = {"workers", "cores", "memory", "spot", "scratch", "there", "head", "timeouts", "price"}
    assert named <= set(reasons)


def test_an_engine_that_the_template_lacks_says_which_there_are(shipped: Project) -> None:
    only_dask = shipped.template("etl").model_copy(
        update={"engines": {Engine.DASK: shipped.template("etl").engines[Engine.DASK]}}
    )
    with pytest.raises(NotFoundError, match=r"runs on dask; add 'spark' under engines: in clusters/etl.yaml"):
        plan(ask("etl", engine="spark"), only_dask, NO_LIMITS, shipped.target)


def test_a_template_that_is_not_there_names_the_nearest(shipped: Project) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'etl'"):
        shipped.template("elt")


def test_values_from_elsewhere_are_checked_again(shipped: Project) -> None:
    with pytest.raises(WorkloadError, match="data: -1 B is not above 0"):
        plan(Workload("etl", data=Bytes(-1)), shipped.template("etl"), NO_LIMITS, shipped.target)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_plan_is_ordered_within_limits_and_survives_json(shipped: Project, data: st.DataObject) -> None:
    asked = Workload(
        data.draw(st.sampled_from(sorted(shipped.templates))),
        engine=data.draw(st.none() | st.sampled_from(Engine)),
        data=data.draw(st.none() | st.integers(1, 10**14).map(Bytes)),
        workers=data.draw(st.none() | st.integers(1, 12) | st.tuples(st.integers(1, 5), st.integers(5, 20))),
        memory=data.draw(st.none() | st.integers(10**9, 10**11).map(Bytes)),
        cores=data.draw(st.none() | st.integers(1, 64)),
        gpu=data.draw(st.none() | st.integers(0, 3)),
    )
    limit = st.none() | st.integers(1, 20)
    totals: dict[str, Limit] = {"memory": Limit(data.draw(st.integers(10**9, 10**12)), "a")}
    if (cores := data.draw(limit)) is not None:
        totals["cores"] = Limit(cores, "b")
    per = {
        "workers": Limit(data.draw(st.integers(1, 12)), "c"),
        "head": Limit(data.draw(st.integers(1, 10**10)), "d"),
    }
    limits = Limits("u", "t", None, 1.0, totals, per)
    try:
        result = plan(asked, shipped.template(asked.template), limits, shipped.target)
    except NeverFitsError:
        return  # any other error fails the test
    minimum, count, maximum = workers(result)
    assert 1 <= minimum <= count <= maximum
    assert maximum <= max(per["workers"].value, asked.workers if isinstance(asked.workers, int) else 0)
    assert amounts(result).memory <= totals["memory"].value
    assert "cores" not in totals or amounts(result).cores <= totals["cores"].value
    assert result.head.memory <= per["head"].value
    assert read(Plan, json.loads(json.dumps(plain(result)))) == result


def test_what_a_limit_lowered_is_told_apart(planned: Planned) -> None:
    assert lowered(planned("etl", workers=2)) == []
    told = lowered(planned("etl", data="25 GB"))
    assert told == [
        "at most 3 workers, since tier standard (policies/tiers.yaml:3) gives 3 workers per cluster",
        "with 3 it takes longer and spills to scratch disk",
    ]


def test_a_reason_is_stored_as_its_sentence_and_keeps_its_parts_in_this_process(planned: Planned) -> None:
    result = planned("etl", data="25 GB")
    stored = json.loads(json.dumps(plain(result)))
    assert all(type(reason) is str for reason in stored["reasons"].values()), "as 0.1.0 reads it"
    assert lowered(pickle.loads(pickle.dumps(result))) == lowered(copy.deepcopy(result)) == lowered(result)
    assert lowered(read(Plan, stored)) == []


def test_words_of_a_policy_are_not_read_as_a_reason(on_kubernetes: Project) -> None:
    """Whatever a limit's place is called: what was lowered is known, not looked for in the sentence."""
    limits = on_kubernetes.policy.limits_of("somebody")
    odd = {"workers": Limit(3, "tier a; with 3 (it) gives")}
    template = on_kubernetes.template("etl")
    result = plan(
        ask("etl"), template, replace(limits, per_cluster={**limits.per_cluster, **odd}), on_kubernetes.target
    )
    assert lowered(result) == [
        "at most 3 workers, since tier a; with 3 (it) gives gives 3 workers per cluster"
    ]
