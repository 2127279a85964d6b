"""Home `local`: processes of this machine, and a ledger in SQLite or PostgreSQL."""
