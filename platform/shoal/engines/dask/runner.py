"""What runs a submitted script beside its cluster: ``python -P -m shoal.engines.dask.runner``, in a pod of its own.

Why it exists: it takes the script and what it imports from the scheduler, lays them out, and becomes the script. What
it needs is said by its environment: ``SHOAL_RUN`` (``ScriptRun`` as JSON), ``SHOAL_SCHEDULER``, ``SHOAL_CERTIFICATE``,
``SHOAL_SCRATCH`` and ``SHOAL_POD_UID``. Where nothing comes it ends with 4, and says why.

What it must not do: know a home, or run a script that is not the one that was submitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from shoal.errors import DeadlineError, InfrastructureError, ShoalError, UsageError
from shoal.machine.parcel import Unfolded, command, digest, unpack
from shoal.model.codec import read
from shoal.model.workload import ScriptRun

_FAILED = 4  # as commands exit where infrastructure failed
_COMES = 180.0  # s that its archive may take to come
_AGAIN = 0.5  # s between two tries
_TRY = 60.0  # s of one
_INSTALLED = 300.0  # s that its packages may take
_SAID = Path("/dev/termination-log")  # what Kubernetes tells of a container's end
_OWN = ("SHOAL_RUN", "SHOAL_POD_UID", "SHOAL_SCHEDULER", "SHOAL_PACKAGES")  # nothing of the script's


def main() -> NoReturn:
    """Become the script; where that cannot be, end."""
    try:
        run = read(ScriptRun, json.loads(os.environ["SHOAL_RUN"]))
        content, packages = asyncio.run(_taken(run.code))
        there = unpack(content, Path(os.environ["SHOAL_SCRATCH"], "code"))
        environment = _environment(there, packages)
        os.chdir(there.folder)
        sys.stdout.flush()
        words = command(there.script, run.function, run.arguments)
        os.execve(words[0], words, environment)  # noqa: S606 - no shell
    except ShoalError as error:
        said = f"it was not started: {error.message}"
    except OSError as error:
        said = f"it was not started: {error}"
    sys.stderr.write(f"{said}\n")
    with contextlib.suppress(OSError):
        _SAID.write_text(said)
    sys.exit(_FAILED)


async def _taken(code: str) -> tuple[bytes, Path | None]:
    """The archive, once it is there, and the folder of what ``packages=`` asked for.

    Raises:
        DeadlineError: it did not come.
        UsageError: it is another one, or was given to another pod.
    """
    from shoal.engines.dask.locked import get_locked
    from shoal.engines.dask.script import TAKE, ask
    from shoal.engines.dask.security import security

    folder = Path(os.environ["SHOAL_CERTIFICATE"])
    tls = security((folder / "tls.crt").read_text(), (folder / "tls.key").read_text())
    address, pod = os.environ["SHOAL_SCHEDULER"], os.environ["SHOAL_POD_UID"]
    begin, failed = time.monotonic(), "whoever submitted it has not sent it"
    while time.monotonic() - begin < _COMES:
        said: dict[str, Any] = {}
        try:
            said = await ask(address, tls, _TRY, op=TAKE, pod=pod)
            failed = "whoever submitted it has not sent it"
        except InfrastructureError as error:
            failed = error.message
        if "taken" in said:
            raise UsageError(f"it was given to another pod before ({said['taken']}), and runs once")
        if content := said.get("content"):
            if digest(content) != code:
                raise UsageError("what came is not what was submitted")
            scratch = Path(os.environ["SHOAL_SCRATCH"])
            return bytes(content), await get_locked(address, tls, scratch, _INSTALLED)
        await asyncio.sleep(_AGAIN)
    raise DeadlineError(f"its code did not come within {_COMES:.0f} s: {failed}")


def _environment(there: Unfolded, packages: Path | None) -> dict[str, str]:
    """This process's, with the script's folders around what is on the path here."""
    kept = {name: value for name, value in os.environ.items() if name not in _OWN}
    here = [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
    asked = [str(packages)] if packages is not None else []
    path = os.pathsep.join([*there.front, *asked, *here, *there.back])
    settings = {name: str(value) for name, value in there.more.items()}
    if "SHOAL_PROJECT" in settings:
        settings["SHOAL_PROJECT"] = os.environ["SHOAL_SCRATCH"] + "/code" + settings["SHOAL_PROJECT"]
    return kept | settings | {"PYTHONPATH": path}


if __name__ == "__main__":
    main()
