"""What Shoal depends on, checked and built."""
