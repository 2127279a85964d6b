"""What a head runs: Dask or Spark, behind one port."""
