"""Dask's own tests, as its wheel ships them, with a cluster of ours as Dask's default scheduler (`make others`).

Not collected by itself: it takes long, and what fails is told by ``expected.yaml``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent
MODULES = [name for name in os.environ.get("SHOAL_OTHERS", "").split(",") if name] or [
    "dask.bag.tests.test_bag",
    "dask.bag.tests.test_text",
    "dask.tests.test_base",
    "dask.tests.test_delayed",
    "dask.tests.test_graph_manipulation",
    "dask.dataframe.tests.test_reshape",
    "dask.dataframe.tests.test_indexing",
    "dask.array.tests.test_overlap",
]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_dasks_own(
    module: str, project: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    (tmp_path / "work").mkdir()
    template = project / "clusters" / "small.yaml"
    template.write_text(
        template.read_text().replace("idle: 5 min", "idle: 1 h").replace("max: 1 h", "max: 4 h")
    )
    junit = tmp_path / "found.xml"
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "shoal_others",
                "-p",
                "no:cacheprovider",
                "-c",
                os.devnull,
            ),
            *("--rootdir", str(tmp_path / "work"), "--timeout", "300", "-q", "-rfEX", "--show-capture=no"),
            *("--tb=short", f"--junitxml={junit}", "-o", "junit_family=xunit1", "--pyargs", module),
        ],
        cwd=tmp_path / "work",
        env=os.environ
        | {
            "PYTHONPATH": str(HERE),
            "OTHERS_PROJECT": str(project),
            "OTHERS_EXPECTED": str(HERE / "expected.yaml"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert junit.exists(), done.stdout[-4000:] + done.stderr[-4000:]
    suite = ElementTree.parse(junit).getroot()
    results = Counter(result(case) for case in suite.iter("testcase"))
    steps = next(p.get("value") for p in suite.iter("property") if p.get("name") == "transitions")
    record_property("n", sum(results.values()))
    said = ", ".join(f"{count} {what}" for what, count in sorted(results.items()))
    record_property("measured", f"{said}; {steps} transitions of tasks on the scheduler")
    assert done.returncode == 0, f"{said}\n{done.stdout[-8000:]}"
    assert results["passed"] > 0
    assert int(steps or 0) > 0, "nothing ran on the cluster"


def result(case: ElementTree.Element) -> str:
    skipped = case.find("skipped")
    if skipped is not None:
        return "expected to fail" if skipped.get("type") == "pytest.xfail" else "skipped"
    return "passed" if case.find("failure") is None and case.find("error") is None else "failed"
