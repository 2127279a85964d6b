"""The head: the one program that owns a running cluster (``python -m shoal.head CLUSTER_ID ENGINE HOME``)."""
