"""What goes into an image, decided without building one; the build itself runs in tests/kubernetes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from shoal.errors import NotFoundError
from shoal.install import images

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "images" / "entry.py"


def test_requirements_follow_extras_and_markers_to_the_installed_versions() -> None:
    plain, spark = images.requirements(["shoal"]), images.requirements(["shoal[spark]"])
    assert plain["distributed"] == metadata.version("distributed")
    assert "tornado" in plain  # needed by what is needed
    assert "shoal" not in plain  # it is copied, not installed
    assert set(spark) - set(plain) >= {"pyspark", "py4j", "grpcio"}
    assert "pytest" not in spark
    assert "pywin32" not in spark  # for another system


def test_requirements_name_all_that_is_absent() -> None:
    with pytest.raises(NotFoundError, match="no-such-thing, nor-this-one") as said:
        images.requirements(["no-such-thing", "shoal", "nor-this-one"])
    assert "pip install no-such-thing, nor-this-one".replace(",", "") in str(said.value).replace(",", "")


def test_pins_take_hashes_from_a_lock_that_has_everything() -> None:
    alpha = "Alpha==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    lock = alpha + "beta[x]==2.0 ; python_version > '3' \\\n    --hash=sha256:cc\n"
    assert images.pins({"alpha": "1.0", "beta": "2.0"}, lock) == (
        "Alpha==1.0 --hash=sha256:aa --hash=sha256:bb\nbeta==2.0 --hash=sha256:cc\n"
    )
    # One that the lock does not know: pip checks all hashes or none.
    assert images.pins({"alpha": "1.1", "beta": "2.0"}, lock) == "alpha==1.1\nbeta==2.0\n"


def test_the_project_s_lock_covers_both_images() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    for extras in images.EXTRAS.values():
        versions = images.requirements([images.COMMON, *(f"shoal[{extra}]" for extra in extras)])
        pinned = images.pins(versions, lock).splitlines()
        assert len(pinned) == len(versions)
        assert all("--hash=sha256:" in line for line in pinned)


def test_an_unknown_image_and_a_missing_builder_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert images.names(ROOT / "images") == ["shoal-dask", "shoal-spark"]
    with pytest.raises(NotFoundError, match="no image shoal-ray") as said:
        images.build(["shoal-ray"], folder=ROOT / "images", references={})
    assert "shoal-dask, shoal-spark" in str(said.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match="buildah, docker, podman"):
        images.build(folder=ROOT / "images", references={})


def test_the_inputs_change_with_base_versions_and_sources(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "Containerfile").write_text("FROM scratch\n")
    (tmp_path / "entry.py").write_text("")

    def digest(base: str = "", pinned: str = "a==1\n") -> str:
        return images._digest(tmp_path, "one", base, pinned, ())

    first = digest()
    assert first == digest()
    assert len({first, digest(base="debian:12"), digest(pinned="a==2\n")}) == 3
    (tmp_path / "entry.py").write_text("pass\n")
    assert digest() != first


def _entry(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ENTRY), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_entry_returns_the_command_s_code_and_says_what_it_cannot_run() -> None:
    for line, code in (("exit 7", 7), ("kill -9 $$", 137)):
        ended = _entry("sh", "-c", line)
        ended.communicate(timeout=10)
        assert ended.returncode == code
    absent = _entry("no-such-command")
    assert "cannot run no-such-command" in absent.communicate(timeout=10)[1]
    assert absent.returncode == 127


def test_entry_hands_signals_on_and_waits() -> None:
    process = _entry("sh", "-c", "trap 'echo ended; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == "ended\n"
    assert process.returncode == 5


def test_entry_takes_its_command_along_when_it_is_killed() -> None:
    process = _entry("sh", "-c", "echo $$; exec sleep 60")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(10)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{child}").exists()
    process.communicate()


def test_entry_runs_what_spark_asks_of_an_executor(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)
    given = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SPARK_HOME": "/spark",
        "SPARK_CONF_DIR": "/conf",
        "SPARK_EXTRA_CLASSPATH": "/extra.jar",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_DRIVER_URL": "spark://driver:7078",
        "SPARK_EXECUTOR_ID": "3",
        "SPARK_EXECUTOR_CORES": "2",
        "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.1",
        "SPARK_EXECUTOR_POD_NAME": "exec-3",
        # Their numbers count, not their spelling.
        **{f"SPARK_JAVA_OPT_{number}": f"-Dn={number}" for number in (10, 2, 0)},
    }
    words = _entry("executor", **given).communicate(timeout=10)[0].splitlines()
    assert words[:3] == ["-Dn=0", "-Dn=2", "-Dn=10"]
    assert words[words.index("-cp") + 1] == "/conf:/extra.jar:/spark/jars/*"
    main = words.index("org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend")
    pairs = dict(zip(words[main + 1 :: 2], words[main + 2 :: 2], strict=True))
    assert pairs["--driver-url"] == "spark://driver:7078"
    assert (pairs["--executor-id"], pairs["--cores"], pairs["--hostname"]) == ("3", "2", "10.0.0.1")
    assert (pairs["--podName"], pairs["--resourceProfileId"]) == ("exec-3", "0")
