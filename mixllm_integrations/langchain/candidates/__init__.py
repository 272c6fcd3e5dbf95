"""The candidates as they are called, and what each is known to lack."""

__all__: list[str] = []
