"""The images that clusters on Kubernetes run in: which there are, and how they are built."""
