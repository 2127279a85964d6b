"""A real Kubernetes for the tests: started in seconds, gone without a trace, from package registries alone.

Two shapes. `node` is a control plane and one real kubelet with containerd, so pods run. `fleet` is a
control plane and kwok, so thousands of simulated nodes and pods fit. This package knows nothing of
Shoal: it starts, describes and ends clusters, and must never touch what it did not make.
"""
