"""Homes: the places where clusters live. ``base`` says what every home can do."""
