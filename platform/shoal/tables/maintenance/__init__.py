"""Keeping tables small and quick: what is no longer needed, and what is left over."""
