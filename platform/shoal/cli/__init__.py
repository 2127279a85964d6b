"""The command line, ``shoal``: commands are thin; what they show is made in ``views`` and ``tables``."""
