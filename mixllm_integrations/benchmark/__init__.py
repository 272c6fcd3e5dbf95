"""How good, how fast, how large: measurements on real data."""

__all__: list[str] = []
