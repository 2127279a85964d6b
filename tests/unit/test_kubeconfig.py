"""Kubeconfigs as people have them: several files, paths beside them, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster, Context, User

from shoal.errors import UsageError
from shoal.homes.kubernetes.kubeconfig import configured, proxy_of

WHOLE = """
clusters: [{name: first, cluster: {server: "https://first:6443", certificate-authority: ca.crt}}]
users: [{name: alice, user: {token: secret}}]
contexts: [{name: one, context: {cluster: first, user: alice, namespace: shoal-alice}}]
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def test_several_files_are_read_as_kubectl_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that says something counts; one that is absent is passed over; paths are the file's own."""
    (tmp_path / "work").mkdir()
    (tmp_path / "chosen").write_text("current-context: one\n")
    (tmp_path / "work" / "config").write_text(WHOLE + "current-context: other\n")
    (tmp_path / "last").write_text(WHOLE.replace("first:6443", "last:6443"))
    files = ["absent", "chosen", "work/config", "last"]
    monkeypatch.setenv("KUBECONFIG", ":".join(str(tmp_path / each) for each in files))
    found = configured()
    assert (found.context_name, found.namespace) == ("one", "shoal-alice")
    assert found.cluster.server == "https://first:6443"
    assert found.cluster.certificate_auth == str(tmp_path / "work" / "ca.crt")


@pytest.mark.parametrize(
    ("command", "run"),
    [("bin/login", "work/bin/login"), ("./login", "work/login"), ("login", None), ("/login", None)],
)
def test_a_program_beside_the_file_is_run_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, run: str | None
) -> None:
    """One without a folder is looked for in PATH."""
    (tmp_path / "work").mkdir()
    program = f"exec: {{command: {command}, apiVersion: client.authentication.k8s.io/v1}}"
    text = WHOLE.replace("token: secret", program) + "current-context: one"
    (tmp_path / "work" / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "work" / "config"))
    found = configured().user
    assert found is not None
    assert found.exec is not None
    assert found.exec.command == (command if run is None else str(tmp_path / run))


def test_the_account_of_a_pod_goes_to_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that has one for its user's data reaches its own API server as all others there do."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(WHOLE + "current-context: one")
    assert proxy_of(configured()) == "http://proxy:3128"
    own = SingleConfig("x", Context("x"), Cluster("https://10.96.0.1:443"), User(token="x"))
    assert proxy_of(own) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("x: [", "is not a kubeconfig"),
        ("[1]", "it is not a mapping"),
        ("clusters: [{cluster: {}}]", "is not a kubeconfig"),
        ("users: some", "is not a kubeconfig"),
        (WHOLE, "has no current context"),
        (WHOLE + "current-context: gone", "has no context 'gone'"),
        (WHOLE.replace("first, user", "none, user") + "current-context: one", "cannot be used: 'none'"),
        (WHOLE.replace("token: secret", "token: [1]") + "current-context: one", "cannot be used: "),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_told_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(text)
    with pytest.raises(UsageError) as refused:
        configured()
    assert said in refused.value.message
    assert str(tmp_path / ".kube" / "config") in refused.value.message


def test_none_at_all_is_told_with_where_one_is_looked_for() -> None:
    with pytest.raises(UsageError, match=r"there is no file ~/\.kube/config"):
        configured()
