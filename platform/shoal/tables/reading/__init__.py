"""From a table to a Dask frame."""
