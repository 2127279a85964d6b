"""Types, schemas and partitions across Arrow, pandas, Iceberg and Spark."""
