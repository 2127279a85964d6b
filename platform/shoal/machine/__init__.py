"""This computer: paths, processes, measures, Java, and what is installed."""
