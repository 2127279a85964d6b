"""Which files travel to a cluster that has none of a person's folders, and where they may land there."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from shoal.errors import UsageError
from shoal.machine import packing
from shoal.machine.modules import Code, Version, version_of
from shoal.machine.packing import Packing
from shoal.machine.unpacking import Unpacked, arrived, named, with_their_paths

HOST = "0123456789ab"


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"NAME = {name!r}\n")


def test_modules_and_packages_travel_and_nothing_else(tmp_path: Path) -> None:
    files(
        tmp_path,
        *(
            "helpers.py",
            "package/__init__.py",
            "package/sub.py",
            "package/deep/__init__.py",
            "package/deep/er.py",
        ),
        *("data/not_of_a_package.py", "space/loaded.py", "space/beside.py", "types.py", "shoal/__init__.py"),
        *("not-a-name.py", ".hidden/__init__.py", "package/data.csv", "package/fast.so", "lonely/odd.py"),
    )
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("zipped.py", "")
    (tmp_path / "of_spark.jar").write_bytes(
        b"x" * (packing.ONE + 1)
    )  # Spark's own are on the path of its driver
    here = str(tmp_path)
    versions = {
        "space.loaded": version_of(f"{here}/space/loaded.py"),
        "package.fast": version_of(f"{here}/package/fast.so"),
        "alias": version_of(f"{here}/lonely/odd.py"),
        "zipped": version_of(f"{here}/archive.zip/zipped.py"),
        "gone": version_of(f"{here}/gone.py"),
    }
    packed = Packing().gather(
        Code((here, f"{here}/archive.zip", f"{here}/of_spark.jar"), (), versions, ("alias",))
    )
    assert packed.left == ()
    assert {str(Path(each).relative_to(tmp_path)) for each in packed.files} == {
        *(
            "helpers.py",
            "package/__init__.py",
            "package/sub.py",
            "package/deep/__init__.py",
            "package/deep/er.py",
        ),
        *("space/loaded.py", "space/beside.py", "lonely/odd.py", "archive.zip"),
    }


def test_what_does_not_fit_is_told_and_what_is_loaded_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "a.py", "b.py", "c.py", "z.py")
    (tmp_path / "large.py").write_text("x" * 200)
    monkeypatch.setattr(packing, "FILES", 2)
    monkeypatch.setattr(packing, "ONE", 100)
    here = str(tmp_path)
    packed = Packing().gather(Code((here,), (), {"z": version_of(f"{here}/z.py")}))
    assert [Path(each).name for each in packed.files] == ["z.py", "a.py"]
    beyond, large = sorted(packed.left, key=lambda text: "was not sent" in text)
    assert f"{here}/b.py and 1 more file" in beyond
    assert f"{here}/large.py was not sent" in large
    monkeypatch.setattr(packing, "ALL", 20)
    assert [Path(each).name for each in Packing().gather(Code((here,))).files] == ["a.py"]
    monkeypatch.setattr(packing, "_LOOKED", 3)
    assert any("not all folders" in text for text in Packing().gather(Code((here,))).left)


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    files(tmp_path, "a.py")
    packing_, path = Packing(), str(tmp_path / "a.py")
    before = packing_.gather(Code((str(tmp_path),)))
    packing_.arrived.update(before.files)
    assert packing_.fresh(before) == []
    Path(path).write_text("NAME = 'another'\n")
    after = packing_.gather(Code((str(tmp_path),)))
    assert packing_.fresh(after) == [path]


@pytest.mark.parametrize(
    ("host", "path"),
    [
        (HOST, "relative.py"),
        (HOST, "/a/../../etc/passwd"),
        (HOST, "/a/./b.py"),
        (HOST, "//a/b.py"),
        (HOST, "/a\0b.py"),
        (HOST, "/" + "a" * 2000),
        ("../../etc", "/a.py"),
        ("", "/a.py"),
    ],
)
def test_no_client_says_where_else_a_file_lands(host: str, path: str) -> None:
    with pytest.raises(UsageError, match="not a file of a client"):
        named(host, path)


def test_what_arrived_is_placed_and_told_by_the_path_that_its_owner_knows(tmp_path: Path) -> None:
    unpacked = Unpacked(tmp_path / "there")
    path, other = "/home/alice/package/sub.py", "/home/alice/fast.so"
    name = named(HOST, path)
    content = b"def f(x): return x\n"
    digests = {path: packing.digest(content)}
    assert unpacked.lacks({name: digests[path]}) == [name]
    unpacked.put(name, content)
    assert unpacked.lacks({name: digests[path]}) == []
    assert Unpacked(tmp_path / "there").lacks({name: digests[path]}) == [], "of a process before"
    assert unpacked.read([name, "sent:nothing"]) == {name: content}
    versions = {"package.sub": Version(path, 5, 5), "lonely_fast": Version(other, 5, 5)}
    code, missing = arrived(Code(("/home/alice", "/nowhere"), (), versions), HOST, digests)
    assert missing == ["lonely_fast"]
    placed = unpacked.placed(code)
    assert placed.front == (f"{tmp_path}/there/{HOST}/home/alice",)
    assert placed.versions["package.sub"].file == f"{tmp_path}/there/{HOST}{path}"
    assert Path(placed.versions["package.sub"].file).read_bytes() == content
    said = f"{placed.versions['package.sub'].file} and {code.versions['package.sub'].file}"
    assert with_their_paths(said, unpacked.base) == f"{path} and {path}"
    assert unpacked.size == len(content)
    unpacked.keep(())
    assert (unpacked.size, unpacked.read([name])) == (0, {})
