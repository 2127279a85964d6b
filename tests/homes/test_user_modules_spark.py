"""A person's Python functions on a Spark cluster run in the person's interpreter, with the person's modules."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]

Marked = Callable[[], dict[int, str]]

HELPERS = """
import sys
import pandas as pd
def double(x): return 2 * x
def doubled(column: pd.Series) -> pd.Series: return 2 * column
def rows(frames):
    for frame in frames: yield frame.assign(id=double(frame.id))
def group(frame): return frame.assign(id=double(frame.id))
def where(x): return sys.executable
class Twice:
    def eval(self, x: int):
        yield double(x),
        yield double(x),
def batch(frame, number):
    with open(frame.sparkSession.conf.get("spark.told"), "a") as file:
        file.write(str([double(row.value) for row in frame.collect()]))
"""

TIDE = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "tide-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tide.py", "HIGH = 40")
        wheel.writestr("tide-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tide\\nVersion: 1\\n")
        wheel.writestr("tide-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("tide-1.dist-info/RECORD", "")
    return name
"""

CONNECT = """
import importlib, os, pathlib, sys, time, warnings
import shoal
from pyspark.sql.functions import col, pandas_udf, udf
c = shoal.connect("code", project=os.environ["PROJECT"])
session = c.session
def numbers(f, column="id", n=3):
    return [row[0] for row in session.range(n).select(f(col(column))).collect()]
"""


class Home:
    """A home with one Spark cluster named ``code``, all of it started as cron does: with nearly no environment."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.project = project
        data = folder / "data"
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": os.environ["HOME"],
            "SHOAL_DATA": str(data),
            "SHOAL_CATALOG_URI": f"sqlite:///{data / 'catalog.db'}",
            "SHOAL_USER": "alice",
            "PROJECT": str(project),
        }
        for name in ("JAVA_HOME", "SHOAL_CACHE", "TMPDIR"):
            if name in os.environ:
                self.environment[name] = os.environ[name]

    def run(self, folder: Path, *command: str, python: str | Path = sys.executable) -> str:
        done = subprocess.run(
            [python, *command],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
        return done.stdout

    def script(self, folder: Path, text: str, python: str | Path = sys.executable) -> list[str]:
        """The lines that ``main.py`` with this text prints in this folder; it connects first."""
        (folder / "main.py").write_text(CONNECT + textwrap.dedent(text))
        return self.run(folder, "main.py", python=python).splitlines()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small_project: Callable[[Path], Path]) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    home = Home(folder, small_project(folder / "project"))
    package = folder / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "back"\nbackend-path = ["."]\n'
        '[project]\nname = "tide"\nversion = "1"\n'
    )
    (package / "back.py").write_text(TIDE)
    up = ["up", "small", "--engine", "spark", "--workers", "2", "--name", "code", "--detach", "--yes"]
    up += ["--package", f"tide @ file://{package}", "--project", str(home.project)]
    home.run(folder, "-m", "shoal", *up)
    yield home
    home.run(folder, "-m", "shoal", "down", "code", "--yes", "--project", str(home.project))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A person's folder, with a ``helpers.py``."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    return tmp_path


def test_functions_of_every_kind_run_here_as_at_home(home: Home, folder: Path) -> None:
    """From cron, where the first ``python3`` is another one.

    With modules beside the script, a path that is added later, and what ``packages=`` asked for.
    """
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("from .sub import triple\n")
    (folder / "package" / "sub.py").write_text("def triple(x): return 3 * x\n")
    (folder / "lazy.py").write_text("VALUE = 2\n")
    (folder / "more").mkdir()
    (folder / "more" / "added.py").write_text("def f(x): return x + 7\n")
    (folder / "stream").mkdir()
    (folder / "stream" / "one.txt").write_text("a\nb\n")
    (folder / "colorsys.py").write_text("MINE = 1\n")
    said = home.script(
        folder,
        """
        import helpers, package
        from pyspark.sql.functions import udtf
        def of_main(x):
            import colorsys, lazy, tide
            assert not hasattr(colorsys, "MINE")
            return helpers.double(x) + lazy.VALUE + tide.HIGH
        print(set(numbers(udf(helpers.where))) == {sys.executable})
        print(numbers(udf(helpers.double, "long")), numbers(udf(of_main, "long")), numbers(udf(package.triple, "long")))
        print(numbers(pandas_udf(helpers.doubled, "long")))
        frame = session.range(3)
        print([row.id for row in frame.mapInPandas(helpers.rows, "id long").collect()])
        print(sorted(row.id for row in frame.groupBy("id").applyInPandas(helpers.group, "id long").collect()))
        session.udf.register("twofold", helpers.double, "long")
        print([row[0] for row in session.sql("select twofold(id) from range(3)").collect()])
        session.udtf.register("twice", udtf(helpers.Twice, returnType="x: long"))
        print([row.x for row in session.sql("select * from twice(4)").collect()])
        sys.path.append("more")
        import added
        print(numbers(udf(added.f, "long")))
        told = os.path.abspath("told")
        session.conf.set("spark.told", told)
        query = session.readStream.text(os.path.abspath("stream")).writeStream.foreachBatch(helpers.batch)
        query = query.option("checkpointLocation", os.path.abspath("checkpoint")).trigger(availableNow=True)
        deadline = time.monotonic() + 200
        while True:
            try:
                query.start().awaitTermination(120)
                break
            except Exception as error:  # Spark gives this worker ten seconds to start, on any machine
                if "connect back" not in str(error) or time.monotonic() > deadline:
                    raise
        print(pathlib.Path(told).read_text())
        """,
    )
    assert said == [
        "True",
        "[0, 2, 4] [42, 44, 46] [0, 3, 6]",
        "[0, 2, 4]",
        "[0, 2, 4]",
        "[0, 2, 4]",
        "[0, 2, 4]",
        "[8, 8]",
        "[7, 8, 9]",
        "['aa', 'bb']",
    ]


def test_an_edited_module_reaches_new_functions_when_it_is_reloaded(home: Home, folder: Path) -> None:
    """Spark's Python workers are used again, so they have the module as it was; an edit alone is told.

    Its plans are compressed, as large ones are: functions are found in them as well.
    """
    said = home.script(
        folder,
        """
        session.conf.set("spark.connect.session.planCompression.threshold", "1")
        import helpers
        double = udf(lambda x: helpers.double(x), "long")
        print(numbers(double))
        source = pathlib.Path("helpers.py")
        source.write_text(source.read_text().replace("return 2 * x", "return 20 * x"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            deadline = time.monotonic() + 60
            while not caught and time.monotonic() < deadline:
                numbers(double)
        print([f"{w.category.__name__}: {w.message}" for w in caught])
        importlib.reload(helpers)
        print(numbers(double), numbers(udf(helpers.double, "long")))
        """,
    )
    assert said[0] == "[0, 2, 4]"
    assert "UserModuleWarning" in said[1]
    assert "importlib.reload(helpers)" in said[1]
    assert said[2] == "[0, 20, 40] [0, 20, 40]"


def test_two_projects_with_modules_of_one_name_on_one_cluster(
    home: Home, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each session's functions find the modules of its own client, and run in its client's environment."""
    other = tmp_path_factory.mktemp("another")
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "all.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (other / "helpers.py").write_text("def double(x): return 1000 + x\n")
    text = "import helpers\nprint(numbers(udf(lambda x: helpers.double(x), 'long')), flush=True)\n"
    (folder / "main.py").write_text(CONNECT + text + "input()\n" + text)
    with subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=folder,
        env=home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "[0, 2, 4]\n"
        also = """
            from shoal.client.spark_code import settle_python
            print(set(numbers(udf(lambda x: sys.executable))) == {sys.executable}, sys.executable)
            session.conf.set("spark.shoal.python.version", "3.9.1")
            print(settle_python(session, here=True, chosen=True))
            """
        python = environment / "bin" / "python"
        said = home.script(other, text + textwrap.dedent(also), python)
        assert said[:2] == ["[1000, 1001, 1002]", f"True {python}"]
        assert ", 3.9.1 on the workers" in said[2]
        assert first.communicate("\n", timeout=120)[0] == "[0, 2, 4]\n"


SPAWNED = """
import concurrent.futures, multiprocessing, os, typing
from dataclasses import dataclass

@dataclass(frozen=True)
class Point:
    x: int
    def twice(self): return double(self.x)
    @staticmethod
    def of(x): return Point(int(x))

FACTOR = 2
def double(x): return FACTOR * x
def whole(column): return column.map(lambda x: Point.of(x).twice())
def rows(frames):
    for frame in frames: yield frame.assign(id=double(frame.id))
class Twice:
    def eval(self, x: int):
        yield double(x),

def child():
    import pandas
    import shoal
    from pyspark.sql.functions import col, pandas_udf, udf, udtf
    cluster = shoal.connect("code", project=os.environ["PROJECT"])
    frame = cluster.session.range(3)
    start = Point(1)
    def of(f): return [row[0] for row in frame.select(f(col("id"))).collect()]
    assert of(udf(double, "long")) == [0, 2, 4]
    assert of(udf(lambda x: start.twice() + double(x), "long")) == [2, 4, 6]
    whole.__annotations__ = {"column": pandas.Series, "return": pandas.Series}
    assert of(pandas_udf(whole, "long")) == [0, 2, 4]
    assert [row.id for row in frame.mapInPandas(rows, "id long").collect()] == [0, 2, 4]
    cluster.session.udtf.register("twice", udtf(Twice, returnType="x: long"))
    assert [row.x for row in cluster.sql("select * from twice(4)").collect()] == [8]
    cluster.close()
    return Point(1)

if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(child).result() == Point(1)
        print("done")
"""


def test_what_a_script_defines_runs_here_from_its_spawned_children(home: Home, folder: Path) -> None:
    """The way to use Spark in child processes: there the script has another name, ``__mp_main__``."""
    (folder / "main.py").write_text(SPAWNED)
    assert home.run(folder, "main.py") == "done\n"
