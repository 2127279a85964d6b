"""The class archive of Spark's JVM: made at the end of the first cluster, and read by the next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shoal
from shoal.engines.spark.archive import ClassArchive
from shoal.machine.java import Java
from shoal.machine.paths import cache_folder


def archives(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.glob("classes-*.jsa"))


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    file = tmp_path / "a.jar"
    file.write_bytes(b"1")
    return file


def made(tmp_path: Path, jar: Path, *more: Path) -> ClassArchive:
    (folder := tmp_path / "cache").mkdir(exist_ok=True)
    return ClassArchive(folder, Java(tmp_path / "java", 17), [jar, *more])


def test_what_a_jvm_wrote_is_read_by_those_with_the_same_class_path(tmp_path: Path, jar: Path) -> None:
    first = made(tmp_path, jar)
    assert first.missing
    written = Path(first.options.removeprefix('"-XX:ArchiveClassesAtExit=').removesuffix('"'))
    written.write_bytes(b"archive")
    assert made(tmp_path, jar).missing, "it is not read before it is complete"
    first.keep()
    (name,) = archives(tmp_path / "cache")
    second = made(tmp_path, jar)
    assert not second.missing
    assert second.options == f'"-XX:SharedArchiveFile={tmp_path / "cache" / name}"'
    second.keep()  # nothing was to be written
    assert archives(tmp_path / "cache") == [name]
    jar.write_bytes(b"another")
    assert made(tmp_path, jar).missing


def test_what_could_not_be_made_is_tried_three_times_a_day(tmp_path: Path, jar: Path) -> None:
    """Its JVM may have been killed, or slow; one that never writes it is not asked to at every end."""
    for _ in range(3):
        archive = made(tmp_path, jar)
        assert archive.missing
        archive.keep()  # its JVM wrote nothing
    again = made(tmp_path, jar)
    assert (again.missing, again.options) == (False, "")
    (failed,) = (tmp_path / "cache").glob("*.failed")
    before = time.time() - 25 * 3600
    os.utime(failed, (before, before))
    once_more = made(tmp_path, jar)
    assert once_more.missing
    once_more.keep()
    assert made(tmp_path, jar).missing, "the day before does not count"


def test_those_used_last_are_kept(tmp_path: Path, jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.engines.spark.archive._KEPT", 2)
    left = made(tmp_path, jar)._new  # of a JVM that was killed
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    for number in range(3):
        (more := tmp_path / f"{number}.jar").write_bytes(b"")
        archive = made(tmp_path, jar, more)
        archive._new.write_bytes(b"")
        os.utime(archive._new, (number, number))
        if number == 2:
            assert made(tmp_path, jar, tmp_path / "0.jar").options, "0 is used"
        archive.keep()
    assert [made(tmp_path, jar, tmp_path / f"{n}.jar").missing for n in range(3)] == [False, True, False]
    assert not left.exists()


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.soak  # writing one takes half a minute of CPU, and two_users.py has one written, too
def test_the_second_cluster_maps_what_the_first_one_left(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: Callable[[], dict[int, str]]
) -> None:
    """In a cache of its own, that has the jars."""
    (fresh := tmp_path / "cache").mkdir()
    (fresh / "ivy").symlink_to(cache_folder() / "ivy")
    monkeypatch.setenv("SHOAL_CACHE", str(fresh))
    mapped = []
    for _ in range(2):
        with shoal.spark("small", workers=1, project=project, quiet=True) as cluster:
            assert cluster.sql("select 1 + 1 as n").collect()[0].n == 2
            maps = [Path(f"/proc/{pid}/maps").read_text() for pid in marked()]
            mapped.append(any(f"{fresh}/spark/classes-" in each for each in maps))
    assert mapped == [False, True]
    assert (fresh / "spark").stat().st_mode & 0o777 == 0o700
    assert len(archives(fresh / "spark")) == 1
