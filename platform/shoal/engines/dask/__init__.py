"""Dask in a head: scheduler, workers, certificate."""
