"""What Shoal stands on, proved and made."""
