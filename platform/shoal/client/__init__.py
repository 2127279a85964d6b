"""The user's process: the ways in, and handles."""
