"""What every test can ask for. Kubernetes is started by the first test that wants it, and only then."""

pytest_plugins = ["cluster.fixtures"]
