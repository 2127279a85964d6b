"""From a request to a plan: every number, and the reason for it."""
