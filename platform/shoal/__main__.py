"""``python -m shoal``: the command line, where the ``shoal`` script is not on PATH.

Why it exists: a person who has the package has its commands.

What it must not do: anything else.
"""

from shoal.cli.main import main

if __name__ == "__main__":
    main()
