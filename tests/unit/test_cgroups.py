"""Cgroups of clusters: where they are, by what the kernel says of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.machine.cgroups import folder_of, member

OTHERS = (
    "30 23 0:27 / /proc rw - proc proc rw\n34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)
ALONE = OTHERS + "35 23 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
BESIDE = OTHERS + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
PART = OTHERS + "35 23 0:29 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
USER = "/user.slice/user-1000.slice/user@1000.service/app.slice/code.scope"
OWN = f"shoal-{member('1dc6980ffb03', 'sqlite:///ledger.db').cluster}.{member('x', 'sqlite:///ledger.db').ledger}"


@pytest.mark.parametrize(
    ("mounts", "cgroup", "folder"),
    [
        (ALONE, f"0::{USER}\n", f"/sys/fs/cgroup{USER}"),
        (ALONE, "0::/\n", "/sys/fs/cgroup"),
        (BESIDE, "5:cpuset:/\n1:cpu:/x\n0::/\n", "/sys/fs/cgroup/unified"),
        (PART, "0::/docker/abc/inner\n", "/sys/fs/cgroup/inner"),
        (ALONE, f"0::{USER}/{OWN}\n", f"/sys/fs/cgroup{USER}"),  # a task starts another cluster
        (ALONE, f"0::/{OWN}/{OWN}\n", "/sys/fs/cgroup"),
        (ALONE, f"0::/{OWN}/made-by-a-task\n", "/sys/fs/cgroup"),
    ],
)
def test_clusters_have_theirs_in_the_one_of_whoever_starts_them(
    mounts: str, cgroup: str, folder: str
) -> None:
    assert folder_of(mounts, cgroup) == Path(folder)


@pytest.mark.parametrize(
    ("mounts", "cgroup"),
    [
        (OTHERS, "0::/\n"),
        (ALONE, "4:memory:/x\n"),
        (PART, "0::/../other\n"),
        (PART, "0::/docker/x\n"),
        ("", ""),
    ],
)
def test_there_is_none_where_the_kernel_or_the_container_has_none(mounts: str, cgroup: str) -> None:
    assert folder_of(mounts, cgroup) is None


def test_the_name_shows_no_password() -> None:
    its = member("a", "postgresql://ledger:hunter2@db/shoal")
    assert "hunter2" not in repr(its)
    assert its != member("a", "postgresql://ledger:other@db/shoal")
