"""A home of somebody else's, written against the ports alone: a folder with one file, processes for heads.

It governs by ``Governor``, and its heads may only report: each has a folder of its own with its orders, which it
reads, and its report, which it writes. It is told nothing of where the records are. See ``guest_desk``.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guest_desk import GuestDesk

from shoal.errors import InfrastructureError, NotFoundError, StaleRecordError
from shoal.governor import ports
from shoal.governor.actions import Scope, Seen
from shoal.governor.answers import why_not, would
from shoal.governor.ends import End, Phase, Pulse
from shoal.governor.ports import AccountKey, Sight, Snapshot
from shoal.governor.rounds import Governor
from shoal.homes.base import Request, Wishes, Wrote, at_least_one, requested
from shoal.homes.same import same_or_refused
from shoal.machine.loopback import get_json
from shoal.machine.processes import MARK, end_marked, identity, is_alive, marked, signal_process
from shoal.model.checks import Check
from shoal.model.cluster import EXIT_CODE, Cluster, Reason, State
from shoal.model.codec import read
from shoal.model.endpoint import Endpoint
from shoal.model.status import Event, HeadStatus
from shoal.project.loading import Project, load, look_up
from shoal.quota.account import Account
from shoal.quota.admission import Decision, lasting, with_workers
from shoal.units import Seconds

_REPORTS = (State.ADMITTED, State.STARTING, State.READY)
_NEWS = 1.0  # s between two writes of a report that says nothing new
# With what Dask sets for its workers before they start, they may be forked.
_DASK = {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_DASK |= {"MALLOC_TRIM_THRESHOLD_": "65536", "PYTHONHASHSEED": "6640"}
_started: list[subprocess.Popen[bytes]] = []


@dataclass
class Kept:
    """All that the home knows."""

    records: dict[str, tuple[Cluster, int]] = field(default_factory=dict)
    accounts: dict[AccountKey, tuple[Account, int]] = field(default_factory=dict)
    stops: dict[str, End] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    groups: dict[str, dict[str, int]] = field(default_factory=dict)
    longest: dict[str, float] = field(default_factory=dict)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)

    def get(self, cluster_id: str) -> Cluster:
        if cluster_id not in self.records:
            raise NotFoundError(f"there is no cluster {cluster_id!r}")
        return self.records[cluster_id][0]

    def put(self, cluster: Cluster) -> None:
        before, version = self.records.get(cluster.id, (None, 0))
        self.records[cluster.id] = cluster, version + 1
        said = (cluster.state, cluster.reason, cluster.message)
        if before is None or said != (before.state, before.reason, before.message):
            self.events.setdefault(cluster.id, []).append(Event(*said, time.time()))


class GuestHome:
    """``store:`` of the target is its folder."""

    name = "guest"

    def __init__(self, project: Project) -> None:
        self._project, self._folder = project, Path(str(project.target.store))

    def __reduce__(self) -> tuple[Callable[..., GuestHome], tuple[Any, ...]]:
        return _again, (self._project.folder, self._project.target.name)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[Kept]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = self._folder / "kept"
            before = file.read_bytes() if file.exists() else pickle.dumps(Kept())
            kept: Kept = pickle.loads(before)
            yield kept
            if (after := pickle.dumps(kept)) != before:
                _write(file, after)
                for cluster_id in kept.heads:
                    _write(self._of(cluster_id) / "orders", pickle.dumps(_orders(kept, cluster_id)))

    def _of(self, cluster_id: str) -> Path:
        return self._folder / "heads" / cluster_id

    # -- what governs it -------------------------------------------------------------------------------

    def _govern(self) -> Kept:
        governor = Governor(self, self._project.policy, GuestDesk.periods)
        for _ in range(10):
            if not governor.round():
                break
        with self._kept() as kept:
            return kept

    def snapshot(self) -> Snapshot:
        with self._kept() as kept:
            wishes, sights = {}, {}
            for cluster_id, (cluster, _) in list(kept.records.items()):
                said = {} if cluster.state.ended else self._reported(cluster_id)
                if cluster.state in _REPORTS and (new := _told(cluster, said)) != cluster:
                    kept.put(new)
                wants = said.get("wants")
                if wants is not None:
                    wants = max(1, min(int(wants), cluster.plan.groups[0].maximum))
                wishes[cluster_id] = ports.UserWishes(
                    kept.stops.get(cluster_id),
                    kept.workers.get(cluster_id, wants),
                    kept.groups.get(cluster_id, {}),
                )
                if cluster_id in kept.heads and not cluster.state.ended:
                    sights[cluster_id] = _sight(kept.heads[cluster_id], cluster_id, said)
            machine = self._project.target.machine
            there = None if machine is None else look_up(machine)
            return Snapshot(time.time(), dict(kept.accounts), dict(kept.records), sights, wishes, there)

    def _reported(self, cluster_id: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self._of(cluster_id) / "report").read_text()[:100_000]))
        except (OSError, ValueError):
            return {}

    def write_account(self, key: AccountKey, account: Account, version: int) -> int:
        with self._kept() as kept:
            if kept.accounts.get(key, (None, 0))[1] != version:
                raise StaleRecordError("it was changed by somebody else")
            kept.accounts[key] = account, version + 1
        return version + 1

    def write_cluster(self, cluster: Cluster, version: int) -> int:
        with self._kept() as kept:
            if kept.records[cluster.id][1] != version:
                raise StaleRecordError("it was changed by somebody else")
            kept.put(cluster)
        return version + 1

    def start_head(self, cluster_id: str) -> None:
        with self._kept() as kept:
            if cluster_id in kept.heads:
                return
            folder, engine = self._of(cluster_id), kept.get(cluster_id).plan.engine
            folder.mkdir(mode=0o700, parents=True)
            _write(folder / "orders", pickle.dumps(_orders(kept, cluster_id)))
            environment = {key: its for key, its in os.environ.items() if key != "GUEST_STORE"}
            with (folder / "head.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "shoal.head", cluster_id, engine, "guest"],
                    cwd=folder,
                    env=environment | _DASK | {MARK: cluster_id, "GUEST_HEAD": str(folder)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            _started.append(process)
            kept.heads[cluster_id] = identity(process.pid)

    def stop_head(self, cluster_id: str) -> None:
        self._signal(cluster_id, signal.SIGTERM)

    def start_script(self, cluster_id: str) -> None:
        raise NotImplementedError  # it takes no request with one

    def kill_head(self, cluster_id: str) -> None:
        self._signal(cluster_id, signal.SIGKILL)

    def end_remains(self, cluster_id: str) -> None:
        end_marked(cluster_id)

    def _signal(self, cluster_id: str, number: signal.Signals) -> None:
        with self._kept() as kept:
            signal_process(kept.heads.get(cluster_id, {}), number)

    # -- the home, as handles and commands see it ------------------------------------------------------

    def user(self) -> str:
        return os.environ.get("SHOAL_USER") or "guest"

    def _asked(self, request: Request, cluster_id: str) -> Cluster:
        team = self._project.policy.limits_of(request.owner).team
        return requested(request, cluster_id, team, time.time(), str(self._project.folder))

    def request(self, request: Request) -> Cluster:
        self._govern()
        with self._kept() as kept:
            known = _named(kept, request.name, request.owner)
            if known is not None and not known.state.ended:
                return same_or_refused(known, request)
            cluster = self._asked(request, request.id or secrets.token_hex(6))
            kept.put(cluster)
        try:
            cluster = self._govern().get(cluster.id)
            if cluster.state is State.REFUSED or (
                cluster.state is State.QUEUED and not request.workload.queue
            ):
                raise why_not(self.snapshot(), self._project.policy, cluster).error()
        except BaseException:
            with self._kept() as kept:
                if not kept.get(cluster.id).state.ended:
                    end = {"state": State.REFUSED, "reason": Reason.OVER_LIMIT, "ended_at": time.time()}
                    kept.put(replace(kept.get(cluster.id), **end))
            raise
        return cluster

    def would(self, request: Request) -> Decision:
        known = self.find(request.name, request.owner)
        same = known.id if known is not None and not known.state.ended else ""
        return would(self.snapshot(), self._project.policy, self._asked(request, same))

    def held(self, owner: str, *, team: bool = False) -> Account:
        return self._govern().accounts.get((Scope.TEAM if team else Scope.USER, owner), (Account(), 0))[0]

    def get(self, cluster_id: str) -> Cluster:
        return self._govern().get(cluster_id)

    def find(self, name: str, owner: str) -> Cluster | None:
        return _named(self._govern(), name, owner)

    def clusters(self, *, owner: str | None = None, ended: bool = False) -> list[Cluster]:
        every = [cluster for cluster, _ in self._govern().records.values()]
        return [c for c in every if owner in (None, c.owner) and (ended or not c.state.ended)][::-1]

    def stop(self, cluster_id: str, reason: Reason, message: str) -> Cluster:
        with self._kept() as kept:
            if not kept.get(cluster_id).state.ended:
                kept.stops.setdefault(cluster_id, End(reason, message))
        return self.get(cluster_id)

    def remains(self, cluster_id: str) -> bool:
        with self._kept() as kept:
            return bool(is_alive(kept.heads.get(cluster_id, {}))) or bool(marked(cluster_id))

    def scale(self, cluster_id: str, workers: int, group: str = "") -> Cluster:
        its = self.get(cluster_id).plan.group(group)
        at_least_one(workers, self.get(cluster_id).plan, group)

        def wish(many: int) -> None:
            with self._kept() as kept:
                if its.name == kept.get(cluster_id).plan.groups[0].name:
                    kept.workers[cluster_id] = many
                else:
                    kept.groups.setdefault(cluster_id, {})[its.name] = many

        wish(workers)
        cluster = self.get(cluster_id)
        if cluster.plan.group(group).count < workers:
            wish(its.count)
            larger = replace(cluster, plan=with_workers(cluster.plan, workers, group))
            raise why_not(self.snapshot(), self._project.policy, larger).error()
        return cluster

    def extend(self, cluster_id: str, longest: Seconds) -> Cluster:
        with self._kept() as kept:
            cluster = kept.get(cluster_id)
            limits = self._project.policy.limits_of(cluster.owner)
            kept.put(replace(cluster, plan=lasting(cluster, longest, limits, time.time())))
            kept.longest[cluster_id] = float(longest)
            return kept.get(cluster_id)

    def attend(self, cluster_id: str) -> None: ...

    def note_exit(self, cluster_id: str, code: int) -> None:
        with self._kept() as kept:
            cluster = kept.get(cluster_id)
            kept.put(replace(cluster, report=cluster.report | {EXIT_CODE: code}))

    def endpoint(self, cluster_id: str) -> Endpoint:
        cluster = self.get(cluster_id)
        try:
            return Endpoint(**json.loads((self._of(cluster_id) / "endpoint").read_text()))
        except OSError:
            raise InfrastructureError(
                f"{cluster.name} cannot be connected to: it is {cluster.state}"
            ) from None

    def dashboard(self, cluster_id: str, *, lasting: bool = False) -> str:
        return self.endpoint(cluster_id).dashboard

    def status(self, cluster_id: str, timeout: float = 2.0) -> HeadStatus | None:
        url = self.get(cluster_id).head.get("status_url")
        try:
            token = (self._of(cluster_id) / "token").read_text()
            return read(HeadStatus, get_json(str(url), token, timeout))
        except (OSError, ValueError):
            return None

    def history(self, cluster_id: str) -> list[Event]:
        return self._govern().events.get(cluster_id, [])

    def unresponsive(self, cluster: Cluster) -> str:
        return ""

    def logs(self, cluster_id: str, lines: int = 200, wrote: Wrote = Wrote.ANYBODY) -> str:
        log = self._of(cluster_id) / "head.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def proofs(self) -> list[Check]:
        return [("guest's folder", lambda: f"{self._folder} holds {len(self._govern().records)} records")]


def _told(cluster: Cluster, said: dict[str, Any]) -> Cluster:
    """What of a record is its head's to tell: where it is, its workers, what they used. Not its state."""
    now = time.time()
    kept = {EXIT_CODE: cluster.report[EXIT_CODE]} if EXIT_CODE in cluster.report else {}
    workers = max(0, min(int(said.get("workers", 0)), sum(g.maximum for g in cluster.plan.groups)))
    new = replace(cluster, workers=workers, head=cluster.head | {"status_url": said.get("status_url")})
    if new == cluster and now - (cluster.renewed_at or 0) < _NEWS:
        return cluster
    return replace(new, renewed_at=now, report=dict(said.get("usage", {})) | kept)


def _sight(head: dict[str, Any], cluster_id: str, said: dict[str, Any]) -> Sight:
    """What is seen of its processes, and what it tells: its phase, and why it has to end."""
    end = End(Reason(said["stop"][0]), str(said["stop"][1])[:500]) if "stop" in said else None
    if not is_alive(head):
        return Sight(Seen.GONE, bool(marked(cluster_id)), last=end)
    phase = None
    if "state" in said:
        phase = Phase(State(said["state"]), Reason(said["reason"]), str(said["message"])[:500])
    return Sight(Seen.ALIVE, True, pulse=Pulse(said=end, phase=phase))


def _orders(kept: Kept, cluster_id: str) -> tuple[Cluster, Wishes]:
    """What a head may read: its own record, and what it is to do."""
    cluster = kept.get(cluster_id)
    stop: tuple[Reason | None, str] = (None, "")
    if cluster.state is State.STOPPING or cluster.state.ended:
        stop = cluster.reason, cluster.message
    workers = kept.workers.get(cluster_id)
    within = None if workers is None else min(workers, cluster.plan.groups[0].count)
    groups = {
        name: min(many, cluster.plan.group(name).count)
        for name, many in kept.groups.get(cluster_id, {}).items()
    }
    return cluster, Wishes(within, *stop, longest=kept.longest.get(cluster_id), groups=groups)


def _named(kept: Kept, name: str, owner: str) -> Cluster | None:
    named = [c for c, _ in kept.records.values() if (c.name, c.owner) == (name, owner)]
    live = [cluster for cluster in named if not cluster.state.ended]
    return (live or named)[-1] if named else None


def _write(file: Path, data: bytes) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(data)
    fresh.replace(file)


def _again(folder: Path, target: str) -> GuestHome:
    return GuestHome(load(folder, target))


@atexit.register
def _let_go() -> None:
    for process in _started:
        if process.poll() is None:
            process.returncode = 0  # it outlives who started it
