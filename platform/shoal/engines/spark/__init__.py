"""Spark Connect in a head."""
