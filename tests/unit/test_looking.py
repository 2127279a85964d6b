"""With faults in ``shoal.yaml`` clusters are looked for where they are, or nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.client.wiring import catalog_of
from shoal.errors import ConfigError, NotFoundError, UsageError
from shoal.project import loading as project
from shoal.project.targets import Cloud, Machine, Mount, Prices, Target

Folder = Callable[..., Path]

ETL = """\
engines:
  dask: {image: shoal-dask}
workers: {min: 2, max: 10, cores: 4, memory: 14 GB}
head: {cores: 2, memory: 8 GB}
"""

PLACES = """\
default_target: mine
targets:
  mine:
    home: local
    machine:
      cores: 4
    store: sqlite:////tmp/mine.db
    prices: {core: 0.03 USD, gib: 0.004 USD}
  cloud:
    home: kubernetes
    images:
      shoal-dask: mine/dask
    kubernetes:
      context: blue
      namespace: team
      system: apart
      spot:
        selector: {pool: spot}
mounts:
  data:
    path: /data
"""


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("cores: 4", "cores: four", r"yaml:6: targets\.mine\.machine\.cores"),
        ("gib: 0.004 USD", "gib: 1 EUR", r"yaml:8: targets\.mine\.prices"),
        (", gib: 0.004 USD", "", r"yaml:8: targets\.mine\.prices\.gib: is missing"),
        ("{pool: spot}", "all", r"yaml:18: targets\.cloud\.kubernetes\.spot\.selector"),
        ("shoal-dask: mine/dask", "shoal-dask: 3", r"yaml:12: targets\.cloud\.images\.shoal-dask"),
        ("path: /data", "path: [/data]", r"yaml:21: mounts\.data\.path"),
    ],
)
def test_a_wrong_value_in_the_settings_leaves_what_tells_where_clusters_are(
    folder: Folder, right: str, wrong: str, told: str
) -> None:
    """Nobody should be unable to see and end what runs because of a typo."""
    root = folder(etl=ETL)
    (root / "shoal.yaml").write_text(PLACES.replace(right, wrong))
    found = project.load(root, looking=True)
    assert place_of(found) == ("local", "sqlite:////tmp/mine.db", None, None, None)
    assert place_of(project.load(root, "cloud", looking=True)) == (
        "kubernetes",
        None,
        "blue",
        "team",
        "apart",
    )
    assert any(re.search(told, str(fault)) for fault in found.faults)
    with pytest.raises(ConfigError, match=told):
        found.policy.limits_of("dana")
    with pytest.raises(ConfigError, match=told):
        catalog_of(found)
    with pytest.raises(ConfigError, match=told):
        project.load(root, tolerant=True)


def place_of(found: project.Project) -> tuple[str | None, ...]:
    """Where clusters are looked for."""
    its = found.target.kubernetes or Cloud()
    on = (its.context, its.namespace, its.system) if found.target.in_pods else (None, None, None)
    return found.target.home, found.target.store, *on


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    store:", "    stroe:"),
        ("    store:", "    database:"),
        ("    store:", "  store:"),
        ("    store:", "    catalog:"),  # known, and of something else
        ("    store: ", "      store: "),
        ("4\n    store: ", "four\n        store:"),  # all of it one value
        ("home: local", "home: lokal"),
        ("default_target: mine", "default_target: mien"),
        ("  cloud:", "  mine:"),
        ("  cloud:", "  miner:"),
        ("targets:", "target:"),
        ("mounts:", "mount:"),
        ("    path:", "    pth:"),
        ("path: /data", "path: ["),
        ("    kubernetes:\n", ""),  # images have these names then
        ("      namespace: team\n      system:", "namespace: team\n      system:"),
    ],
)
def test_a_fault_that_may_be_about_the_place_does_not_lead_to_another_one(
    folder: Folder, right: str, wrong: str
) -> None:
    root = folder(etl=ETL)
    (root / "shoal.yaml").write_text(PLACES.replace("core: 0.03 USD", "core: cheap").replace(right, wrong, 1))
    with pytest.raises(ConfigError, match=r"shoal\.yaml:\d"):
        project.load(root, looking=True)


Slip = Callable[[list[str]], list[str]]
KEYS = [
    *(
        "default_target",
        "targets",
        "mounts",
        "tables",
        "mine",
        "cloud",
        "cluster",
        "ns",
        "kubeconfig",
        "database",
    ),
    *(key for kind in (Target, Cloud, Machine, Prices, Mount) for key in kind.model_fields),
]


@st.composite
def slips(draw: st.DrawFn, count: int) -> Slip:
    """One slip of whoever edits so many lines, each with a key: a key is elsewhere, there twice, or under another name;
    alone, or with what belongs to it."""
    first, to = draw(st.integers(0, count - 1)), draw(st.none() | st.integers(0, count))
    indent, alone, twice = draw(st.sampled_from(range(10))), draw(st.booleans()), draw(st.booleans())
    name, cut = draw(st.none() | st.sampled_from(KEYS)), draw(st.none() | st.integers(0, 5))

    def slip(lines: list[str]) -> list[str]:
        level = [len(line) - len(line.lstrip()) for line in lines]
        within = range(first + 1, count)
        last = first + 1 if alone else next((at for at in within if level[at] <= level[first]), count)
        key, value = lines[first].strip().split(":", 1)
        if name is not None or cut is not None:
            fresh = name or key[: cut or 0] + key[(cut or 0) + 1 :]
            return [*lines[:first], f"{' ' * level[first]}{fresh}:{value}", *lines[first + 1 :]]
        moved = [
            " " * max(0, level[at] - level[first] + indent) + lines[at].lstrip() for at in range(first, last)
        ]
        if twice:
            return [*lines[:last], *moved, *lines[last:]]
        rest = [*lines[:first], *lines[last:]]
        at = first if to is None else to
        return [*rest[:at], *moved, *rest[at:]]

    return slip


# The folder is the same for all examples: each writes its one file anew.
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slip=slips(PLACES.count("\n")), target=st.sampled_from(["mine", "cloud"]), faulty=st.booleans())
def test_no_slip_leads_to_another_place(folder: Folder, slip: Slip, target: str, faulty: bool) -> None:
    """The clusters are where the file says without the slip, or it is refused; with another fault beside it, too."""

    def looked(lines: list[str], *, looking: bool) -> tuple[str | None, ...] | None:
        (root / "shoal.yaml").write_text("\n".join(lines))
        try:
            return place_of(project.load(root, looking=looking))
        except (ConfigError, NotFoundError):
            return None

    root = folder(etl=ETL)
    right = PLACES.replace("default_target: mine", f"default_target: {target}").splitlines()
    wrong = [line.replace("cores: 4", "cores: four") for line in right] if faulty else right
    # What is no fault is what somebody wants.
    place = looked(slip(right), looking=False) or looked(right, looking=False)
    assert looked(slip(wrong), looking=True) in (place, None)


def test_a_variable_of_the_catalog_is_not_needed_to_look(folder: Folder) -> None:
    root = folder(etl=ETL)
    (root / "shoal.yaml").write_text(
        PLACES.replace("    machine:", '    catalog: {uri: "${NO_SUCH_VARIABLE}"}\n    machine:')
    )
    found = project.load(root, looking=True)
    assert [str(fault) for fault in found.faults] == [
        "shoal.yaml:5: targets.mine.catalog.uri: needs the environment variable NO_SUCH_VARIABLE, which is not set; "
        "set NO_SUCH_VARIABLE, or write ${NO_SUCH_VARIABLE:-default}"
    ]
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE"):
        catalog_of(found)
    with pytest.raises(UsageError, match="NO_SUCH_VARIABLE"):
        project.load(root)
