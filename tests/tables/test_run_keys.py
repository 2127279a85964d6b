"""No sweep of a run deletes what a table still refers to: run keys over branches, tags, renamed and remade tables."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

import shoal
from shoal.errors import UsageError
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.catalogs.opening import CatalogSettings
from shoal.tables.errors import ConflictError
from shoal.tables.writing import points, write
from shoal.tables.writing.points import WritePoint

SEEDS = 20 if "SHOAL_SOAK" in os.environ else 1  # half a minute each


@pytest.fixture
def catalog(lake: CatalogSettings) -> Catalog:
    return catalogs.catalog(lake)


def rows(table: str, **how: Any) -> list[int]:
    return sorted(shoal.read_table(table, **how).id.compute())


def put(value: int, table: str, **how: Any) -> Any:
    return shoal.write_table(pa.table({"id": [value]}), table, **how)


class DiedError(SystemExit):
    """Stands for the end of a process: nothing is deleted on the way out."""


def killed(point: WritePoint, patch: pytest.MonkeyPatch, act: Any) -> None:
    """A try that ends at a moment, and deletes nothing any more."""

    def die(reached: WritePoint) -> None:
        if reached is point:
            raise DiedError

    with patch.context() as now:
        now.setattr(points, "hook", die)
        for sweeper in ("give_up", "delete_files", "sweep", "sweep_run", "sweep_new"):
            now.setattr(write, sweeper, lambda *a, **k: None)
        with pytest.raises(DiedError):
            act()


def parquets(table: str) -> set[Path]:
    location = catalogs.load(table).location().removeprefix("file://")
    return set(Path(location, "data").rglob("*.parquet"))


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
def test_one_key_on_main_and_on_branches(name: str, mode: str) -> None:
    how = {"mode": mode, "keys": "id"} if mode == "upsert" else {"mode": mode}
    put(0, name)
    shoal.branch(name, "a")
    shoal.branch(name, "b")
    for value, branch in enumerate(("main", "a", "b"), 1):
        assert not put(value, name, run_key="k", branch=branch, **how).replayed
    shoal.tag(name, "kept")
    for _ in range(2):
        for value, branch in enumerate(("main", "a", "b"), 1):
            expected = [value] if mode == "overwrite" else [0, value]
            assert rows(name, branch=branch) == expected
        assert rows(name, snapshot="kept") == ([1] if mode == "overwrite" else [0, 1])
        for branch in ("b", "main", "a"):
            assert put(9, name, run_key="k", branch=branch, **how).replayed


def test_a_table_that_was_renamed_keeps_its_files(name: str, catalog: Catalog) -> None:
    old = f"{name}_old"
    put(1, name, run_key="load")
    catalog.rename_table(name, old)
    assert not put(2, name, run_key="load").replayed
    assert put(2, name, run_key="load").replayed
    assert put(1, old, run_key="load").replayed
    assert (rows(name), rows(old)) == ([2], [1])


def test_a_table_that_was_dropped_can_be_registered_again(name: str, catalog: Catalog) -> None:
    put(1, name, run_key="load")
    where = catalog.load_table(name).metadata_location
    catalog.drop_table(name)
    assert not put(2, name, run_key="load").replayed
    assert put(2, name, run_key="load").replayed
    catalog.register_table(f"{name}_back", where)
    assert (rows(name), rows(f"{name}_back")) == ([2], [1])


def test_a_branchs_run_whose_snapshot_has_expired(name: str, catalog: Catalog) -> None:
    """Run again, it is known by its key alone; what it wrote is in later snapshots of the branch."""
    put(0, name)
    shoal.branch(name, "b")
    landed = put(1, name, run_key="k", branch="b")
    put(2, name, branch="b")
    catalog.load_table(name).maintenance.expire_snapshots().by_id(landed.snapshot_id).commit()
    assert put(1, name, run_key="k", branch="b").replayed
    assert rows(name, branch="b") == [0, 1, 2]


def test_a_key_that_was_forgotten(name: str, catalog: Catalog) -> None:
    """Its snapshot has expired, and its property is gone: the run's id comes again, beside what it once wrote."""
    landed = put(1, name, run_key="k")
    put(2, name)
    table = catalog.load_table(name)
    table.maintenance.expire_snapshots().by_id(landed.snapshot_id).commit()
    table = catalog.load_table(name)
    with table.transaction() as change:
        change.remove_properties(*(key for key in table.properties if key.startswith("shoal.run.")))
    assert not put(3, name, run_key="k").replayed
    assert rows(name) == [1, 2, 3]


def test_a_file_of_an_earlier_version_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 0.1 a run's folder was named by its key alone."""
    import hashlib

    def folder_of_0_1(metadata: Any, *_: Any, **__: Any) -> str:
        return f"{metadata.location}/data/run-{hashlib.sha256(b'k').hexdigest()[:20]}"

    with monkeypatch.context() as before:
        before.setattr(write, "run_folder", folder_of_0_1)
        put(1, name, run_key="k")
    assert "run-" + hashlib.sha256(b"k").hexdigest()[:20] in str(parquets(name))
    shoal.branch(name, "b")
    assert put(1, name, run_key="k").replayed
    assert not put(2, name, run_key="k", branch="b").replayed
    assert (rows(name), rows(name, branch="b")) == ([1], [1, 2])
    # And the same folder once more, as two versions side by side would have it.
    monkeypatch.setattr(write, "run_folder", folder_of_0_1)
    shoal.branch(name, "c")
    assert not put(3, name, run_key="k", branch="c").replayed
    assert (rows(name), rows(name, branch="b"), rows(name, branch="c")) == ([1], [1, 2], [1, 3])


def test_after_a_rollback_a_run_is_written_again(name: str) -> None:
    """It said that its rows were there."""
    first = put(0, name).snapshot_id
    loaded = put(1, name, run_key="load")
    for again in (2, 3):
        shoal.rollback(name, first)
        result = put(again, name, run_key="load")
        assert (result.replayed, rows(name)) == (False, [0, again])
        assert put(9, name, run_key="load").snapshot_id == result.snapshot_id
    shoal.rollback(name, loaded.snapshot_id)
    assert put(9, name, run_key="load").snapshot_id == loaded.snapshot_id
    assert rows(name) == [0, 1]
    assert rows(name, snapshot=result.snapshot_id) == [0, 3]


def test_a_rollback_whose_snapshots_expire(name: str, catalog: Catalog) -> None:
    """Nothing but its property tells of a run whose snapshot has expired, so a rollback keeps that right."""
    first = put(0, name).snapshot_id
    loaded = put(1, name, run_key="load").snapshot_id
    shoal.rollback(name, first)
    shoal.rollback(name, loaded)
    before = put(2, name).snapshot_id
    catalog.load_table(name).maintenance.expire_snapshots().by_id(loaded).commit()
    assert put(9, name, run_key="load").replayed
    other = put(3, name, run_key="other").snapshot_id
    shoal.rollback(name, before)
    catalog.load_table(name).maintenance.expire_snapshots().by_id(other).commit()
    assert not put(4, name, run_key="other").replayed
    assert rows(name) == [0, 1, 2, 4]


def test_a_branch_that_starts_anew(name: str, catalog: Catalog) -> None:
    put(0, name)
    shoal.branch(name, "b")
    put(1, name, run_key="k", branch="b")
    catalog.load_table(name).manage_snapshots().remove_branch("b").commit()
    shoal.branch(name, "b")
    assert not put(2, name, run_key="k", branch="b").replayed
    assert (rows(name), rows(name, branch="b")) == ([0], [0, 2])


def test_a_past_that_has_expired(name: str, catalog: Catalog) -> None:
    """A snapshot kept by a tag, of a past with a hole: the run's rows may be there, and are not written twice."""
    put(0, name)
    loaded = put(1, name, run_key="k").snapshot_id
    shoal.tag(name, "kept")
    middle = put(2, name).snapshot_id
    put(3, name)
    catalog.load_table(name).maintenance.expire_snapshots().by_id(middle).commit()
    again = put(9, name, run_key="k")
    assert (again.replayed, again.snapshot_id, rows(name)) == (True, loaded, [0, 1, 2, 3])


def test_a_try_that_its_own_runs_rollback_overtook(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The try that landed has deleted this one's files."""
    first = put(0, name).snapshot_id

    def meanwhile(reached: WritePoint) -> None:
        if reached is WritePoint.CLIENT_AFTER_FILES:
            monkeypatch.setattr(points, "hook", None)
            put(1, name, run_key="k")
            shoal.rollback(name, first)

    monkeypatch.setattr(points, "hook", meanwhile)
    with pytest.raises(ConflictError, match="was rolled back meanwhile"):
        put(2, name, run_key="k")
    assert rows(name) == [0]
    assert not put(2, name, run_key="k").replayed
    assert rows(name) == [0, 2]


def test_an_empty_key_is_refused(name: str) -> None:
    """It was as good as none."""
    for key in ("", " "):
        with pytest.raises(UsageError, match="is empty"):
            put(1, name, run_key=key)


@pytest.mark.parametrize("point", [WritePoint.CLIENT_AFTER_SWAP, WritePoint.CLIENT_BEFORE_SWAP])
def test_an_interrupted_commit_keeps_what_may_have_landed(
    name: str, point: WritePoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the catalog was changed: the rows are the table's."""
    put(0, name)

    def interrupt(reached: WritePoint) -> None:
        if reached is point:
            raise KeyboardInterrupt

    with monkeypatch.context() as now:
        now.setattr(points, "hook", interrupt)
        with pytest.raises(KeyboardInterrupt):
            put(1, name, run_key="k")
    assert rows(name) == ([0, 1] if point is WritePoint.CLIENT_AFTER_SWAP else [0])
    assert put(1, name, run_key="k").replayed == (point is WritePoint.CLIENT_AFTER_SWAP)
    assert rows(name) == [0, 1]
    assert len(parquets(name)) == 2


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_ref_stays_readable(
    seed: int, name: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a few keys, killed and tried again, over branches, tags, renamed and remade tables, by dice."""
    dice = random.Random(seed)
    keys = ["k1", "k2"]
    expected: dict[str, dict[str, list[int]]] = {}  # table -> ref -> rows
    landed: set[tuple[str, str, str]] = set()  # (which table, branch, key)
    identity: dict[str, str] = {}
    value = made = 0
    for step in range(50):
        what = dice.choice(["write", "write", "write", "branch", "tag", "rename", "drop"])
        refs = expected.get(name, {})
        branches = [ref for ref in refs if not ref.startswith("tag")]
        if what == "write":
            value += 1
            branch = dice.choice(branches) if branches else "main"
            key, mode = dice.choice(keys), dice.choice(["append", "upsert"])
            how: dict[str, Any] = {"run_key": key, "branch": branch}
            how |= {"mode": "upsert", "keys": "id"} if mode == "upsert" else {}
            for point in dice.sample(list(WritePoint), dice.choice([0, 1, 2])):
                done = (identity.get(name, ""), branch, key) in landed
                if done or point in (WritePoint.CLIENT_AFTER_SWAP, WritePoint.CLIENT_BEFORE_SWEEP):
                    continue  # a try that landed is tried again below, by chance
                killed(point, monkeypatch, lambda how=how, value=value: put(value, name, **how))
            result = put(value, name, **how)
            if name not in identity:
                made += 1
                identity[name] = f"{name} {made}"
            run = (identity[name], branch, key)
            assert result.replayed == (run in landed)
            if run not in landed:
                landed.add(run)
                held = expected.setdefault(name, {"main": []}).setdefault(branch, [])
                expected[name][branch] = sorted([*held, value])
        elif what in ("branch", "tag") and branches:
            ref, start = f"{what}{value}_{len(refs)}", dice.choice(branches)
            head = catalog.load_table(name).metadata.snapshot_by_name(start)
            assert head is not None
            (shoal.branch if what == "branch" else shoal.tag)(name, ref, snapshot=head.snapshot_id)
            expected[name][ref] = list(refs[start])
        elif what == "rename" and refs:
            other = f"{name}_{value}_{len(expected)}"
            catalog.rename_table(name, other)
            expected[other], identity[other] = expected.pop(name), identity.pop(name)
        elif what == "drop" and refs and dice.random() < 0.3:
            catalog.drop_table(name)
            del expected[name], identity[name]
        if step % 10 < 9:
            continue  # what is gone stays gone
        for table, held in expected.items():
            for ref, ids in held.items():
                assert rows(table, snapshot=ref) == ids, (table, ref)
