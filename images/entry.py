"""The first process of a container of ours: runs one command, hands signals on, buries orphans.

`entry.py executor` and `entry.py driver ARGS` are what Spark's Kubernetes scheduler asks of an image; any
other words are the command itself. Standard library only, so that it starts before anything is imported.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

_HANDED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_WATCHED = {*_HANDED_ON, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1


def command_of(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command line for `words`, with what Spark sets in the environment of its pods."""
    if words[:1] == ["executor"]:
        return _executor(environment)
    if words[:1] == ["driver"]:
        home, address = environment["SPARK_HOME"], environment["SPARK_DRIVER_BIND_ADDRESS"]
        bind = ["--conf", f"spark.driver.bindAddress={address}", "--deploy-mode", "client"]
        return [f"{home}/bin/spark-submit", *bind, *words[1:]]
    return list(words) or ["python3"]


def _executor(environment: Mapping[str, str]) -> list[str]:
    numbered = {m[1]: v for k, v in environment.items() if (m := re.fullmatch(r"SPARK_JAVA_OPT_(\d+)", k))}
    options = [numbered[number] for number in sorted(numbered, key=int)]
    memory = environment["SPARK_EXECUTOR_MEMORY"]
    # What was mounted or named for the executor goes before what the image has.
    extra = [
        environment[name]
        for name in ("SPARK_EXTRA_CLASSPATH", "SPARK_DIST_CLASSPATH")
        if environment.get(name)
    ]
    conf = [environment["SPARK_CONF_DIR"]] if environment.get("SPARK_CONF_DIR") else []
    path = ":".join([*conf, *extra, f"{environment['SPARK_HOME']}/jars/*"])
    return [
        "java", *options, f"-Xms{memory}", f"-Xmx{memory}", "-cp", path,
        "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend",
        "--driver-url", environment["SPARK_DRIVER_URL"],
        "--executor-id", environment["SPARK_EXECUTOR_ID"],
        "--cores", environment["SPARK_EXECUTOR_CORES"],
        "--app-id", environment["SPARK_APPLICATION_ID"],
        "--hostname", environment["SPARK_EXECUTOR_POD_IP"],
        "--resourceProfileId", environment.get("SPARK_RESOURCE_PROFILE_ID", "0"),
        "--podName", environment["SPARK_EXECUTOR_POD_NAME"],
    ]  # fmt: skip


def _prepare_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(command: Sequence[str]) -> int:
    """Runs `command` to its end; returns its exit code, 128 + signal if a signal ended it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        child = subprocess.Popen(command, preexec_fn=_prepare_child)  # noqa: PLW1509 - there are no threads
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while True:
        received = signal.sigtimedwait(_WATCHED, 1.0)
        if received is not None and received.si_signo in _HANDED_ON:
            os.kill(child.pid, received.si_signo)
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1  # cannot be: the command is a child until it is waited for
            if ended == 0:
                break
            if ended == child.pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(command_of(sys.argv[1:], os.environ)))
