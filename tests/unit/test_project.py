"""A project folder is found, loaded and checked; every fault is said at once, by file and line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import shoal
from shoal.errors import ConfigError, NotFoundError, UsageError
from shoal.homes.kubernetes.applied import Applied
from shoal.model.workload import Engine
from shoal.project import loading as project
from shoal.project.tables import CompactionPolicy, ExpiryPolicy, OrphanPolicy, policy_of
from shoal.project.targets import Machine
from shoal.project.yamlfile import Fault
from shoal.units import Bytes, Seconds

Folder = Callable[..., Path]

ETL = """\
engines:
  dask: {image: shoal-dask}
workers: {min: 2, max: 10, cores: 4, memory: 14 GB}
head: {cores: 2, memory: 8 GB}
"""


def faults_of(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        project.load(folder)
    faults: list[Fault] = caught.value.values["faults"]
    assert all(str(fault) in str(caught.value) for fault in faults)
    return [str(fault) for fault in faults]


def test_the_shipped_project_has_four_templates_for_both_engines(shipped: project.Project) -> None:
    assert sorted(shipped.templates) == ["analytics", "etl", "ml-training", "workbench"]
    for template in shipped.templates.values():
        assert set(template.engines) == {Engine.DASK, Engine.SPARK}
        assert (template.workers.min, template.workers.max, template.workers.cores) == (2, 10, 4)
        assert template.workers.memory == Bytes.parse("14 GB")
    assert shipped.template("analytics").default_engine is Engine.SPARK


def test_the_nearest_folder_upwards_with_a_settings_file_is_the_project(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(etl=ETL)
    deep = root / "notebooks" / "drafts"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert project.load().folder == root
    assert list(project.load().templates) == ["etl"]
    assert "standard" in project.load().policy.tiers  # it has no policies/: the shipped ones


def test_without_a_project_folder_the_shipped_defaults_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert project.load().folder == project.defaults()


def test_a_folder_named_explicitly_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no shoal.yaml"):
        project.load(tmp_path)


def test_every_fault_of_every_file_is_said_at_once(folder: Folder) -> None:
    root = folder(
        etl="""\
engines:
  dask: {image: shoal-dusk}
workers:
  min: 4
  max: 2
  cores: 4
  memory: 14
hed: {cores: 2, memory: 8 GB}
mounts: [reference]
""",
        workbench=ETL + "timeouts: {idel: 5 min, max: 4}\nname: x\n",
        tiers="standard: {concurrent_clusters: 0, workers_per_cluster: 3, memory: 42 Q, max_duration: 4 h}\n",
        users="default: {tier: standart}\nbob: {tier: standard, team: nobody}\n",
    )
    assert faults_of(root) == [
        "clusters/etl.yaml:2: engines.dask.image: there is no image 'shoal-dusk'; did you mean 'shoal-dask'? "
        "Known: shoal-dask, shoal-spark",
        "clusters/etl.yaml:7: workers.memory: 14 has no unit; write a size as '14 GB' (or '14 GiB')",
        "clusters/etl.yaml:8: hed: is not a known key; did you mean 'head'? Known: description, engines, "
        "head, mounts, packages, scratch, secrets, sizing, timeouts, workers",
        "clusters/etl.yaml:9: mounts[0]: there is no mount 'reference' in shoal.yaml; none is defined",
        "clusters/workbench.yaml:5: timeouts.idel: is not a known key; did you mean 'idle'? "
        "Known: idle, max, no_client",
        "clusters/workbench.yaml:5: timeouts.max: 4 has no unit; write a duration as '20 min' or '4 h'",
        "clusters/workbench.yaml:6: name: is not a known key; it follows from the place",
        "policies/tiers.yaml:1: standard.concurrent_clusters: 0 is too small; write 1 or more",
        "policies/tiers.yaml:1: standard.head: is missing; add it",
        "policies/tiers.yaml:1: standard.memory: '42 Q': 'Q' is not a unit of a size; known units: B, kB, "
        "kiB, MB, MiB, GB, GiB, TB, TiB, PB, PiB, KB, KiB; for example '14 GB'",
        "policies/users.yaml:1: default.tier: there is no tier 'standart' in policies/tiers.yaml; "
        "did you mean 'standard'? Known: standard",
        "policies/users.yaml:2: bob.team: there is no team 'nobody' in policies/teams.yaml; none is defined",
    ]


def test_bounds_that_contradict_each_other_are_a_fault(folder: Folder) -> None:
    root = folder(etl=ETL.replace("min: 2", "min: 12"))
    assert faults_of(root) == [
        "clusters/etl.yaml:3: workers: min 12 is above max 10; write min equal to max or below it",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1\nb: 2\n", r"clusters/etl.yaml:2: is not YAML"),
        (ETL + "head: {cores: 1, memory: 1 GB}\n", r"etl.yaml:5: head: appears twice \(first on line 4\)"),
        (ETL + "packages: &p [a]\nmounts: *p\n", r"etl.yaml:6: is not YAML: aliases"),
        ("", r"etl.yaml:1: workers: is missing"),
        ("just text", r"etl.yaml:1: 'just text' was found there; write a mapping with the keys"),
        (ETL.replace("min: 2", "min: '2'"), r"etl.yaml:3: workers.min: '2' is not a whole number"),
        (ETL.replace("dask:", "ray:"), r"etl.yaml:2: engines.ray: 'ray' is not one of them; write 'dask' or"),
        (ETL + "sizing: {throughput_per_core: 0 MB/s}\n", r"etl.yaml:5: sizing.throughput_per_core: is 0"),
        (
            ETL + "packages: xgboost\n",
            r"etl.yaml:5: packages: 'xgboost' was found there; write a list, such as \[xgb",
        ),
        (ETL.replace("{image: shoal-dask}", ""), r"etl.yaml:2: engines.dask: nothing was found there"),
    ],
)
def test_a_broken_template_says_where_and_what(folder: Folder, text: str, fault: str) -> None:
    root = folder(etl=text)
    with pytest.raises(ConfigError, match=fault):
        project.load(root)


@pytest.mark.parametrize("given", [42, ["etl"], b"etl"], ids=repr)
def test_what_is_no_name_of_a_template_is_told(given: object) -> None:
    with pytest.raises(UsageError, match="is not a template's name"):
        shoal.plan(given)  # type: ignore[arg-type]


def test_a_template_of_workers_alone_is_a_template(folder: Folder) -> None:
    root = folder(mine="workers: {min: 1, max: 2, cores: 1, memory: 2 GB}\n")
    mine = project.load(root).template("mine")
    assert [engine.value for engine in mine.engines] == ["dask", "spark"]
    assert mine.engine(None)[1].image == "shoal-dask"
    assert mine.engine(Engine.SPARK)[1].image == "shoal-spark"
    assert mine.head.memory == Bytes.parse("2 GB")


def test_a_bad_file_takes_away_its_own_template_and_no_other(folder: Folder) -> None:
    root = folder(etl=ETL, broken="workers: {min: 3}\ncolour: red\n")
    found = project.load(root, tolerant=True)
    assert list(found.templates) == ["etl"]
    assert {fault.file for fault in found.faults} == {"clusters/broken.yaml"}
    assert found.template("etl").name == "etl"
    with pytest.raises(ConfigError, match=r"broken\.yaml:2: colour"):
        found.template("broken")
    with pytest.raises(NotFoundError, match="other"):
        found.template("other")
    with pytest.raises(ConfigError):
        project.load(root)


def test_images_at_fault_take_away_the_templates_that_need_them(folder: Folder) -> None:
    root = folder(etl=ETL)
    (root / "images").mkdir(exist_ok=True)
    (root / "images/images.yaml").write_text("shoal-dask: [\n")
    found = project.load(root, tolerant=True)
    assert not found.templates
    with pytest.raises(ConfigError, match=r"images/images\.yaml"):
        found.template("etl")


def test_a_bad_policy_takes_away_limits_and_nothing_else(folder: Folder) -> None:
    root = folder(etl=ETL, users="default: {tier: nosuch}\n")
    found = project.load(root, tolerant=True)
    assert found.template("etl").name == "etl"
    assert [fault.file for fault in found.faults] == ["policies/users.yaml"]
    for asks in (found.policy.limits_of, found.policy.user):
        with pytest.raises(ConfigError, match="nosuch"):
            asks("dana")
    with pytest.raises(ConfigError, match="nosuch"):
        Applied.of(found)  # half a policy is not applied
    with pytest.raises(ConfigError, match="nosuch"):
        project.load(root)


def test_a_file_that_would_never_be_read_is_a_fault(folder: Folder) -> None:
    root = folder(etl=ETL, users="default: {tier: standard}\n")
    (root / "clusters/team.yml").write_text(ETL)
    (root / "policies/team.yml").write_text("growth: {memory: 1 GB}\n")
    known = "policies are in tiers.yaml, users.yaml, teams.yaml, templates.yaml and everybody.yaml"
    wrong = [
        "clusters/team.yml:1: is not read; name it team.yaml",
        f"policies/team.yml:1: is not read; {known}",
    ]
    assert faults_of(root) == wrong
    assert [str(fault) for fault in project.load(root, tolerant=True).faults] == wrong, (
        "told, and in nobody's way"
    )
    assert list(project.load(root, tolerant=True).templates) == ["etl"]


@pytest.mark.parametrize("said", ["ETL", "etl.yaml", "clusters/etl.yaml", "Etl.yml"])
def test_a_template_by_its_file_or_in_capitals_is_suggested(folder: Folder, said: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        project.load(folder(etl=ETL)).template(said)
    assert "Did you mean 'etl'?" in caught.value.hint


def test_a_file_that_is_not_text_is_a_fault(folder: Folder) -> None:
    root = folder(etl=ETL)
    (root / "clusters/etl.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in faults_of(root)[0]


def test_contradicting_limits_are_said_by_file_and_line(folder: Folder) -> None:
    root = folder(
        users="default: {tier: standard}\nalice:\n  tier: power\n  team: growth\n  memory: 200 GB\n",
        teams="growth:\n  memory: 140 GB\nidle: {weight: 0}\nrich: {budget: {monthly: 10 EUR, weekly: 2}}\n",
    )
    assert faults_of(root) == [
        "policies/teams.yaml:3: idle.weight: 0 is too small; write more than 0.0",
        "policies/teams.yaml:4: rich.budget.weekly: is not a known key; Known: at_limit, grace, monthly, reserve, warn",
        "policies/users.yaml:5: alice.memory: 200 GB is more than all of team 'growth' may have "
        "(140 GB, policies/teams.yaml:2); lower it, or raise the team's",
    ]


class TestTarget:
    def test_argument_wins_over_environment_wins_over_file(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = folder(etl=ETL)
        assert project.load(root).target.name == "local"
        monkeypatch.setenv("SHOAL_TARGET", "kubernetes")
        assert project.load(root).target.home == "kubernetes"
        assert project.load(root, target="local").target.name == "local"

    def test_an_unknown_one_names_the_nearest(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        root = folder(etl=ETL)
        with pytest.raises(NotFoundError, match="Did you mean 'local'"):
            project.load(root, target="locl")
        monkeypatch.setenv("SHOAL_TARGET", "prod")
        with pytest.raises(NotFoundError, match="from SHOAL_TARGET"):
            project.load(root)

    def test_an_unknown_default_is_a_fault_of_the_file(self, folder: Folder) -> None:
        root = folder(shoal="default_target: a\ntargets:\n  b: {home: local}\n  c: {home: moon, name: c}\n")
        assert faults_of(root) == [
            "shoal.yaml:4: targets.c.home: 'moon' is not one of them; write 'local' or 'kubernetes'",
            "shoal.yaml:4: targets.c.name: is not a known key; it follows from the place",
        ]
        root = folder(shoal="default_target: a\ntargets:\n  b: {home: local, name: c}\n")
        assert [fault.split(": ", 2)[1] for fault in faults_of(root)] == ["default_target", "targets.b.name"]

    def test_variables_are_read_where_the_page_says_so_and_are_no_names_elsewhere(
        self, folder: Folder
    ) -> None:
        cloud = 'kubernetes: {context: "${C}", namespace: "a-${N}", system: "${S}", namespaces: [a, "${N}"]}'
        target = f"default_target: k\ntargets:\n  k:\n    home: kubernetes\n    {cloud}\n    images: {{a: '${{I}}'}}\n"
        root = folder(shoal=target, etl=ETL)
        (root / "images").mkdir()
        (root / "images/images.yaml").write_text('shoal-dask: {reference: "${REGISTRY}/shoal-dask:1"}\n')
        said = faults_of(root)
        assert len(said) == 6, said
        assert all("is not read from the environment: only `catalog:` and `store:`" in each for each in said)
        assert said[0].startswith("images/images.yaml:1: shoal-dask.reference: ")

    SECRETS = """\
default_target: prod
targets:
  prod:
    home: local
    store: postgresql://ledger:${LEDGER_PASSWORD}@db/shoal
    catalog: {uri: "${CATALOG:-sqlite:///here.db}", properties: {token: "${LEDGER_PASSWORD}", ssl: true}}
  other: {home: local, store: "${NOT_SET_ANYWHERE}"}
"""

    def test_secrets_come_from_the_environment_and_are_not_shown(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LEDGER_PASSWORD", "hunter2")
        target = project.load(folder(etl=ETL, shoal=self.SECRETS)).target
        assert target.store == "postgresql://ledger:hunter2@db/shoal"
        assert target.catalog is not None
        assert target.catalog.uri == "sqlite:///here.db"
        assert target.catalog.properties == {"token": "hunter2", "ssl": "true"}
        assert "hunter2" not in repr(target)

    def test_a_missing_variable_matters_only_to_the_target_that_needs_it(self, folder: Folder) -> None:
        root = folder(etl=ETL, shoal=self.SECRETS)
        os.environ.pop("LEDGER_PASSWORD", None)
        with pytest.raises(
            UsageError, match=r"targets\.prod\.store needs the environment variable LEDGER_PASS"
        ):
            project.load(root)

    def test_machine_auto_is_looked_up(self, shipped: project.Project) -> None:
        assert shipped.target.machine == Machine()
        found = project.look_up(shipped.target.machine)
        assert found.cores is not None
        assert 1 <= found.cores <= (os.cpu_count() or 1)
        assert found.memory is not None
        assert found.memory > 10**8
        stated = Machine(cores=8, memory=Bytes.parse("16 GB"))
        assert project.look_up(stated) == stated

    def test_images_are_references_that_a_target_may_replace(self, folder: Folder) -> None:
        settings = "default_target: l\ntargets:\n  l: {home: local, images: {shoal-dask: mine/dask}}\n"
        images = project.load(folder(etl=ETL, shoal=settings)).target.images
        assert images["shoal-dask"] == "mine/dask"
        assert images["shoal-spark"].startswith("shoal-spark:")


def test_the_upkeep_of_tables_is_by_the_first_pattern_that_fits(folder: Folder) -> None:
    """As the guide shows it."""
    root = folder(etl=ETL)
    file = root / "shoal.yaml"
    plain = file.read_text()
    guide = Path(__file__).parents[2] / "docs/how-to/upkeep.md"
    file.write_text(plain + guide.read_text().split("```yaml\n")[1].split("```")[0])
    tables = project.load(root).tables
    first, second, third = (policy_of(name, tables) for name in ("nyc.flights", "nyc.delays", "scratch.x"))
    assert first is not None
    assert (first.compact, first.orphans) == (CompactionPolicy(sort_by=("day",)), None)
    assert first.expire == ExpiryPolicy(older_than=Seconds(30 * 86400), keep=10)
    assert second is not None
    assert (second.compact, second.rewrite_manifests) == (CompactionPolicy(), True)
    assert third is not None
    assert (third.compact, third.orphans) == (None, OrphanPolicy())
    assert policy_of("shop.orders", tables) is None
    file.write_text(
        plain
        + "tables:\n  nyc.flights: {expire: {older_than: 30 days, keep: 3}}\n  nyc.*: {compact: {sort_by: day}}\n"
    )
    tables = project.load(root).tables
    first, second = policy_of("nyc.flights", tables), policy_of("nyc.delays", tables)
    assert first is not None
    assert first.expire == ExpiryPolicy(older_than=Seconds(30 * 86400), keep=3)
    assert (first.compact, first.orphans) == (None, None)
    assert second is not None
    assert second.compact == CompactionPolicy(sort_by=("day",))
    assert policy_of("shop.orders", tables) is None
    file.write_text(
        plain
        + "tables:\n  a.*: {orphans: {older_than: 1 h}, expire: {keep: 0}}\n"
        + "  b.*: {compact: {sort_by: [x], zorder_by: [x, y]}, vacuum: true}\n  c.*: {compact: {zorder_by: x}}\n"
    )
    faults = faults_of(root)
    assert len(faults) == 5
    assert any("c.*" in fault and "two columns or more" in fault for fault in faults)
    assert any("a.*" in fault and "less than 24 h" in fault for fault in faults)
