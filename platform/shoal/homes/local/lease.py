"""How long a head on one machine may be unheard of by the others that share its ledger.

Why it exists: a head that cannot reach the ledger and one whose machine is gone look alike from outside, so the
head ends itself before the others give its quota away. Both are long enough for a database to be restarted, or
moved. On one machine neither is used: everybody there sees whether a head lives.

What it must not do: anything but name them.
"""

LEASE = 300.0  # s without a renewal after which a head ends itself
SILENT = 345.0  # s without a renewal after which others count it as gone
