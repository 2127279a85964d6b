"""The how-to's Python is run, block after block, against a Prefect server; ``deployed`` runs its shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_the_examples_of_the_how_to_run(
    guide: Callable[[str], list[str]], api: Any, empty_home: Path, marked: Callable[[], dict[int, str]]
) -> None:
    code = "\n".join(guide("python")).replace('if __name__ == "__main__":\n    print(delays())', "")
    calls = "import json\nprint(json.dumps([delays(), two_at_once(), with_a_look()]))"
    script = empty_home.parent / "guide.py"
    script.write_text(f"{code}\nif __name__ == '__main__':\n    " + calls.replace("\n", "\n    "))
    env = dict(
        os.environ, PREFECT_API_URL=api.url, PREFECT_HOME=str(empty_home / "prefect"), DO_NOT_TRACK="1"
    )
    before = set(marked().values())
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    late, names, lived = json.loads(done.stdout.splitlines()[-1])
    assert late > 0
    assert names == ["left", "right"]
    assert 0 < lived < 100
    assert set(marked().values()) <= before, "every cluster of the examples has ended"
