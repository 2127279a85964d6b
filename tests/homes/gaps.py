"""Where a home does not behave as the suite asks yet: (home, test) -> why. Each is a strict xfail."""

GAPS: dict[tuple[str, str], str] = {}
