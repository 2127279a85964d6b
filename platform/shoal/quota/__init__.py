"""Who may have how much: accounts, admission, fairness, the queue."""
