"""The audit log, on request: who changed what, and nothing that is secret."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from cluster import binaries, clusters, fixtures, needs, waiting
from cluster.clusters import Cluster
from cluster.errors import Unavailable

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]


@pytest.fixture
def audited() -> Iterator[Cluster]:
    try:
        needs.check("fleet")
    except Unavailable as reason:
        fixtures.unavailable(str(reason))
    if binaries.missing("fleet") and os.environ.get("CI") != "true":
        fixtures.unavailable("the programs of the fleet shape are not compiled yet: `make kube-build`")
    cluster = clusters.start("fleet", owner=os.getpid(), nodes=1, audit=True)
    yield cluster
    clusters.stop(cluster.name)


def test_the_audit_log_tells_who_changed_what_and_nothing_secret(audited: Cluster) -> None:
    admin = audited.admin
    word = "c2VjcmV0LW9mLXRoaXMtdGVzdA=="
    for kind, content in (("ConfigMap", {"said": "in the open"}), ("Secret", {"said": word})):
        admin.create(
            {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": {"name": "audited", "namespace": "default"},
                "data": content,
            }
        )
    admin.close()
    assert audited.folder is not None
    log = audited.folder / "logs" / "audit.log"

    def entries() -> dict[str, dict[str, object]]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        made = [line for line in lines if line.get("objectRef", {}).get("name") == "audited"]
        return {line["objectRef"]["resource"]: line for line in made}

    both = waiting.until("both are in the log", entries, lambda made: len(made) == 2, 20)
    assert both["configmaps"]["requestObject"]["data"] == {"said": "in the open"}  # type: ignore[index]
    assert "requestObject" not in both["secrets"]
    assert word not in log.read_text()
    assert both["secrets"]["user"]["username"]  # type: ignore[index]
