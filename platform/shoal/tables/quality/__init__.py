"""Rules for rows, and what rows break them."""
