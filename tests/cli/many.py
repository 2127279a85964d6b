"""Runs many ``shoal`` commands, each in a process of its own that is forked after the imports.

Reads a JSON list of argument lists; writes a JSON list of ``[exit code, standard output, standard error]``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import tempfile
import traceback

from shoal.cli.app import make_app, run

# What commands import when they need it: once for all instead of in each.
HEAVY = (
    "dask.dataframe",
    "distributed",
    "prefect.client.orchestration",
    "pyiceberg.catalog.sql",
    "shoal.tables",
    "shoal.tables.maintenance",
)


def one(arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.argv[1:] = arguments
                code = run(arguments)
            except SystemExit as leaving:
                code = int(leaving.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
        return code, said[0], said[1]


def main() -> None:
    make_app()
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()  # else each child copies all of it when it collects
    json.dump([one(arguments) for arguments in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
