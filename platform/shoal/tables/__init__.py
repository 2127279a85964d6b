"""Iceberg for Dask, next to Spark: read and write shared tables at full speed.

Why it exists: no maintained project reads and writes Iceberg tables from Dask. This one works on any Dask
cluster, or with no cluster at all, and on the same catalog as Spark.

What it must not do: know of clusters, templates, quotas or policies. It imports ``shoal.words``,
``shoal.errors`` and outside libraries, and could be used by people who use nothing else of Shoal.

The public functions are exported by ``shoal`` itself. The modules, from the bottom up:

=================  ==============================================================================
errors             what can go wrong, each with what to do next
catalog            which catalog, where it lives, how it is reached
spark_conf         the same catalog, as Spark has to be told of it
pyiceberg_private  the one module that touches PyIceberg's private parts
dtypes, schemas    pandas and Arrow types <-> Iceberg types; how a frame differs from a table
arguments          what people hand to these functions, checked first
filters, logic     what people write as a filter -> an Iceberg expression that leaves nothing open
proof              whether a file's rows all pass it; the same as Arrow's expression
plan, scan         which bytes are read by which task; how a task reads them
expression         the one module that touches Dask's private expressions
quality            what people expect of rows, and which rows break it
files, commit      files written on workers; one snapshot committed by the client
read, write        ``read_table`` and ``write_table``
checking           ``check_rows``
maintenance        files put together, snapshots expired, orphans removed, and what doing so would save
refs, labels       history, snapshots, rollback, publishing; tags and branches
=================  ==============================================================================
"""
