"""The examples in the documentation of ``pyspark.sql.functions``, run on a session of ours (`make others`).

Not collected by itself: it takes minutes, and what fails is told by ``expected.yaml``.
"""

from __future__ import annotations

import doctest
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import shoal

EXPECTED = Path(__file__).with_name("expected.yaml")
FLAGS = (
    doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
)  # as Spark runs them
# As Spark runs them: what is new in it is switched on, and there are four slots, which is the order of some answers.
SETTINGS = {
    "spark.sql.timeType.enabled": "true",
    "spark.sql.geospatial.enabled": "true",
    "spark.sql.connect.serverStacktrace.enabled": "false",  # what failed is told, without its way through the JVM
}
FOUR_SLOTS = {
    "shoal.yaml": ("worker: {cores: 1,", "worker: {cores: 2,"),
    "clusters/small.yaml": ("max: 3, cores: 1,", "max: 3, cores: 2,"),
}


@pytest.mark.slow
@pytest.mark.spark
def test_the_examples_of_sparks_functions(
    project: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setenv("SPARK_CONNECT_MODE_ENABLED", "1")  # so pyspark's functions are those of Connect
    import pyspark.sql.connect.functions.builtin as functions

    for name, (old, new) in FOUR_SLOTS.items():
        file = project / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    known = yaml.safe_load(EXPECTED.read_text())
    expected = {name for names in known.values() for name in names if name.startswith(functions.__name__)}
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    failed, said, count = set(), io.StringIO(), 0
    with shoal.spark("small", workers=2, project=project, quiet=True, idle="1 h") as cluster:
        for key, value in SETTINGS.items():
            cluster.session.conf.set(key, value)
        globs = vars(functions) | {"spark": cluster.session}
        for test in doctest.DocTestFinder().find(functions, functions.__name__, globs=globs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = runner.run(test, out=said.write)
            count += outcome.attempted
            if outcome.failed:
                failed.add(test.name)
    record_property("n", count)
    record_property(
        "measured", f"{count} examples; {len(failed)} of their functions fail, all of them expected"
    )
    assert failed == expected, (
        f"unexpected: {sorted(failed - expected)}; these pass: {sorted(expected - failed)}\n{said.getvalue()[-20000:]}"
    )
