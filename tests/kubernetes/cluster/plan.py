"""What one cluster consists of, as values: written by whoever asks, read by the keeper that runs it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Process:
    """One program of the cluster.

    ready: what has to answer before the next phase: "" nothing, "unix:PATH", "tcp:HOST:PORT" or a
    https URL, which is checked against the cluster's own authority.
    """

    name: str
    argv: list[str]
    ready: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """Addresses of a node shape. `index` sets its three /24 networks apart from other clusters' here."""

    index: int

    @property
    def interface(self) -> str:
        return f"shoal{self.index}"

    @property
    def host(self) -> str:
        """This machine, as pods see it."""
        return f"10.98.{self.index}.1"

    @property
    def node(self) -> str:
        return f"10.98.{self.index}.2"

    @property
    def nodes(self) -> str:
        return f"10.98.{self.index}.0/24"

    @property
    def pods(self) -> str:
        return f"10.244.{self.index}.0/24"

    @property
    def services(self) -> str:
        return f"10.97.{self.index}.0/24"

    @property
    def first_service(self) -> str:
        return f"10.97.{self.index}.1"


@dataclass(frozen=True)
class Plan:
    """Everything the keeper needs. `owner` is the process whose death ends the cluster; None: nobody's."""

    name: str
    shape: str
    owner: int | None
    phases: list[list[Process]]
    network: Network | None = None
    # Folders that the node sees empty and its own: (where, "tmpfs") or (where, folder of the cluster).
    mounts: list[tuple[str, str]] = field(default_factory=list)
    # Files that the kubelet wants to read as one value and would else write for the whole machine.
    kernel_values: dict[str, str] = field(default_factory=dict)

    @property
    def cgroup(self) -> str:
        return f"shoal-{self.name}"

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        raw: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        raw["phases"] = [[Process(**process) for process in phase] for phase in raw["phases"]]
        raw["network"] = Network(**raw["network"]) if raw["network"] else None
        raw["mounts"] = [tuple(mount) for mount in raw["mounts"]]
        return cls(**raw)
