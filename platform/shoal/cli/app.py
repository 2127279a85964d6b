"""The ``shoal`` command: its commands, its exit codes, its last line when something goes wrong.

Why it exists: whatever happens, a person reads what happened and what to do next, never a stack trace, and
a program reads the exit code.

What it must not do: import an engine, a store or a project; each command does, when it runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from shoal.cli.exits import EPILOG, ExitCode, code_of
from shoal.errors import ShoalError

HELP = """Ephemeral Dask and Spark clusters, within quotas, over shared Iceberg tables.

States: Queued, Admitted, Starting, Ready, Stopping, Stopped; Refused (a limit said no, nothing was started);
Failed: infrastructure broke. Errors in your own code do not fail the cluster.

\b
Examples:
  shoal plan etl --data '25 GB'       what it would be, why, and whether it fits
  shoal up etl --name nightly         start it; shoal.connect("nightly") in Python
  shoal why nightly                   what it waits for
  shoal down nightly                  end it
"""


class _Commands(TyperGroup):
    """Lists commands in the order of a day's work instead of the alphabet's."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=list(COMMANDS).index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in OTHER_WORDS and args[0] not in self.commands:
            from shoal.errors import UsageError

            ours = OTHER_WORDS[args[0]]
            raise UsageError(f"there is no command {args[0]!r}", hint=f"Did you mean `shoal {ours}`?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # Without its number, by which typer would make a failure of it before main() has it.
            raise BrokenPipeError("the reader went away") from error


# Command -> the module that has it, in the order of a day's work.
COMMANDS = {
    "init": "initialise",
    "demo": "demo",
    "plan": "up",
    "up": "up",
    "ls": "listing",
    "logs": "logs",
    "why": "why",
    "top": "top",
    "dashboard": "dashboard",
    "extend": "extend",
    "scale": "scale",
    "down": "down",
    "quota": "quota",
    "submit": "submit",
    "wait": "wait",
    "tables": "catalog",
    "usage": "usage",
    "cost": "cost",
    "report": "advise",
    "advise": "advise",
    "validate": "validate",
    "doctor": "doctor",
    "images": "images",
    "apply": "apply",
    "render": "render",
    "governor": "governor",
}


# What people know from elsewhere -> the command that does it here.
OTHER_WORDS = {
    **dict.fromkeys(("stop", "rm", "delete", "kill", "terminate", "close", "end"), "down"),
    **dict.fromkeys(("start", "create", "launch", "new"), "up"),
    **dict.fromkeys(("status", "ps", "list", "get"), "ls"),
    **dict.fromkeys(("run", "exec"), "submit"),
    **dict.fromkeys(("describe", "events", "explain"), "why"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("check", "debug"), "doctor"),
    **dict.fromkeys(("ui",), "dashboard"),
    **dict.fromkeys(("costs", "bill", "spend"), "cost"),
}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"shoal {version('shoal')}")
        raise typer.Exit


def _shoal(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def make_app(command: str | None = None) -> typer.Typer:
    """The application. With the name of a command only its module is loaded: reading the options of all of
    them takes longer than `shoal ls` does."""
    app = typer.Typer(
        cls=_Commands,
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_shoal)
    names = [command] if command in COMMANDS else list(COMMANDS)
    for module in dict.fromkeys(COMMANDS[name] for name in names):
        import_module(f"shoal.cli.commands.{module}").add_to(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    from shoal.cli.console import degrade

    degrade()
    if os.environ.get("SHOAL_LOG"):
        from shoal.machine.logs import set_up_if_asked

        set_up_if_asked()
    from shoal.cli import endings

    try:
        command = arguments[0] if arguments else None
        with endings.taken():
            code = make_app(command)(args=list(arguments), prog_name="shoal", standalone_mode=False)
            sys.stdout.flush()
        if code == ExitCode.INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return int(code or 0)
    except ShoalError as error:
        return _report(error, arguments)
    except typer.TyperException as error:
        return _usage(error)
    except BrokenPipeError:
        raise  # to main(), which ends so wherever it happens
    except (KeyboardInterrupt, typer.Abort):
        endings.say_so()
        return endings.interrupted_code()
    except OSError as error:  # a disk, a right, a name that no system takes: the words are the system's own
        where = f" {error.filename}" if error.filename else ""
        print(f"Error: the system refused{where}: {error.strerror or error}", file=sys.stderr)
        _shows_trace()
        if error.filename is None:  # it may be standard output: nothing more is tried there
            from shoal.cli.console import stop_writing

            stop_writing()
        return ExitCode.FAILED
    except Exception as error:
        if _shows_trace():
            return ExitCode.DEFECT
        print(
            f"Error: {type(error).__name__}: {error}\n"
            "This is a defect in Shoal. SHOAL_DEBUG=1 shows where; please report it with that.",
            file=sys.stderr,
        )
        return ExitCode.DEFECT


def _report(error: ShoalError, arguments: Sequence[str]) -> int:
    """The error for a person, and for a program that asked for JSON."""
    from shoal.cli.console import wrapped, write_json

    code = code_of(error)
    print(wrapped(f"Error: {error.message}", sys.stderr), file=sys.stderr)
    if error.hint:
        print(wrapped(error.hint, sys.stderr), file=sys.stderr)
    if _wants_json(arguments):
        from shoal.cli.views import error_view

        write_json(error_view(error, code))
    _shows_trace()
    return code


def _shows_trace() -> bool:
    """Where it comes from, for whoever set SHOAL_DEBUG."""
    wanted = bool(os.environ.get("SHOAL_DEBUG"))
    if wanted:
        import traceback

        traceback.print_exc()
    return wanted


def _usage(error: typer.TyperException) -> int:
    if isinstance(message := getattr(error, "message", None), str):
        error.message = _plain(message)
    show = getattr(error, "show", None)
    if show is not None:
        show()
    else:
        print(f"Error: {error}", file=sys.stderr)
    return int(error.exit_code)


def _plain(message: str) -> str:
    """Without what pydantic, which reads the options, says of itself."""
    message = message.removeprefix("Value error, ")
    return re.sub(r"^Input should be a valid integer\b.*", "It is not a whole number.", message)


def _wants_json(arguments: Sequence[str]) -> bool:
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(
        argument in ("-ojson", "--output=json") or (argument in ("-o", "--output") and value == "json")
        for argument, value in pairs
    )
