"""Files that no snapshot knows: found and removed, and never those of a writer that may live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.tables.catalogs import opening as catalogs
from shoal.tables.errors import NotSupportedError
from shoal.tables.maintenance import expiry

from .upkept import backdate, folder, on_disk, put, rows


def test_orphans_are_found_and_what_may_be_a_live_writers_is_not_taken(name: str) -> None:
    put(name, [1], run_key="a")
    put(name, [2])
    data = folder(name) / "data"
    attempt = data / f"run-{'0' * 20}" / ("a" * 32)
    old_attempt = data / f"run-{'0' * 20}" / ("b" * 32)
    paths = {
        "young": data / "young.parquet",
        "old": data / "old.parquet",
        "list": folder(name) / "metadata/x.avro",
    }
    paths |= {
        "first": attempt / "k=1" / "a.parquet",
        "second": attempt / "b.parquet",
        "dead": old_attempt / "c.parquet",
    }
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345678")
    for kind in ("old", "list", "first", "dead"):
        backdate(paths[kind], 100)
    for path in on_disk(name) - set(paths.values()):
        backdate(path, 100)
    nobodys = {paths["old"], paths["list"], paths["dead"]}
    before = on_disk(name)
    found = shoal.remove_orphans(name)
    assert found.dry_run
    assert {Path(p.removeprefix("file://")) for p in found.paths} == nobodys
    assert (found.bytes, found.young) == (24, 3), "a writer whose newest file is young owns its old ones"
    assert on_disk(name) == before
    shoal.remove_orphans(name, dry_run=False)
    assert before - on_disk(name) == nobodys
    assert rows(name) == [1, 2]
    assert shoal.remove_orphans(name).paths == ()


def test_a_killed_write_is_cleared_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expiry that died after its commit, before it deleted, leaves orphans; so does a write."""
    put(name, [1])
    put(name, [2], "overwrite")

    class DiedError(BaseException):
        pass

    def die(*_: Any) -> None:
        raise DiedError

    with monkeypatch.context() as now:
        now.setattr(expiry, "needed", die)
        with pytest.raises(DiedError):
            shoal.expire_snapshots(name, older_than="0s")
    assert rows(name) == [2]
    for path in on_disk(name):
        backdate(path, 100)
    assert any(path.endswith(".parquet") for path in shoal.remove_orphans(name, dry_run=False).paths)
    assert rows(name) == [2]
    assert len(list(folder(name).rglob("*.parquet"))) == 1


def test_checksums_that_sparks_file_system_writes(name: str) -> None:
    """Beside each of its files on a local disk; they are no table's metadata, and go with their file."""
    put(name, [1])
    kept, lost = (
        next((folder(name) / "metadata").glob("*.metadata.json")),
        folder(name) / "data" / "lost.parquet",
    )
    lost.write_bytes(b"x")
    for file in (kept, lost):
        file.with_name(f".{file.name}.crc").write_bytes(b"crc")
    for path in on_disk(name):
        backdate(path, 100)
    assert len(shoal.remove_orphans(name, dry_run=False).paths) == 2
    assert kept.with_name(f".{kept.name}.crc").exists()
    assert not lost.exists()
    (folder(name) / "metadata" / "00000-torn.metadata.json").write_bytes(b"{")
    with pytest.raises(NotSupportedError, match=r"00000-torn\.metadata\.json cannot be read"):
        shoal.remove_orphans(name)


def test_two_tables_in_one_folder(name: str) -> None:
    """A table that was renamed stays where it was; another takes its name, and its folder."""
    put(name, [1])
    catalogs.catalog().rename_table(name, f"{name}_before")
    put(name, [2])
    for path in on_disk(name):
        backdate(path, 100)
    for table in (name, f"{name}_before"):
        with pytest.raises(NotSupportedError, match="metadata files of another table"):
            shoal.remove_orphans(table, dry_run=False)
    assert (rows(name), rows(f"{name}_before")) == ([2], [1])
    assert shoal.table_health(name).orphans is None
