"""A script on its way to where it runs: what it imports goes with it, and it runs there as it would at home."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shoal.errors import UsageError
from shoal.machine.modules import installed
from shoal.machine.parcel import __file__ as parcel_module
from shoal.machine.parcel import command, digest, pack, unpack

SCRIPT = """
import sys, helpers, package.inner, elsewhere
def main(*words): print(*words, helpers.__file__ != __file__); sys.exit(7)
if __name__ == "__main__": print(sys.argv[1:], helpers.one + package.inner.two + elsewhere.three); sys.exit(7)
"""


def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {
        "jobs/my-job.py": SCRIPT,
        "jobs/helpers.py": "one = 1",
        "jobs/package/__init__.py": "",
        "jobs/package/inner.py": "two = 2",
        "jobs/notes.txt": "does not travel",
        "shared/elsewhere.py": "three = 3",
        "project/shoal.yaml": "targets: {}",
        "here/beside.py": "it is not on the path of the script",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder / "here")
    assert installed().has(parcel_module), "what lies beside this package, as in our images, does not travel"
    monkeypatch.setattr(sys, "path", ["begun from here", str(folder / "shared"), *installed().packages])
    return folder / "jobs" / "my-job.py"


def test_a_script_runs_where_it_was_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    script = at_home(home, monkeypatch)
    script = script.parent / ".." / "jobs" / script.name  # as people write it
    parcel = pack(script, [home / "project" / "shoal.yaml"], WHERE="there")
    assert parcel.digest == pack(script, [home / "project" / "shoal.yaml"], WHERE="there").digest
    assert parcel.left == ()
    there = unpack(parcel.content, tmp_path / "there")
    assert there.more == {"WHERE": "there"}
    names = {
        str(file.relative_to(tmp_path / "there" / str(home).lstrip("/")))
        for file in (tmp_path / "there").rglob("*.*")
    }
    assert names == {
        "jobs/my-job.py", "jobs/helpers.py", "jobs/package/__init__.py", "jobs/package/inner.py",
        "shared/elsewhere.py", "project/shoal.yaml",
    }  # fmt: skip
    path = os.pathsep.join(there.front)
    for function, said in (("", "['a b', '--x'] 6\n"), ("main", "a b --x True\n")):
        words = command(there.script, function, ["a b", "--x"])
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(
            words, cwd=there.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (7, said), done.stderr


@pytest.mark.parametrize("name", ["../outside.py", "a/../../outside.py", "/absolute/../../outside.py"])
def test_what_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(
            "shoal-run.json", '{"script": "/a.py", "folder": "/", "front": [], "back": [], "more": {}}'
        )
        archive.writestr(name, "")
    with pytest.raises(UsageError, match="no file of a script"):
        unpack(stream.getvalue(), tmp_path / "there")
    assert list(tmp_path.rglob("outside.py")) == []


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no archive of a script"):
        unpack(b"nothing of the kind", tmp_path)
    with pytest.raises(UsageError, match=r"absent\.py cannot be read"):
        pack(tmp_path / "absent.py", [])
    assert digest(b"a") != digest(b"b")
