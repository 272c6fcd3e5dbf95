"""The steps, in their order."""

__all__: list[str] = []
