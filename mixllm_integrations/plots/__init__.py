"""Figures for files: what benchmarks and reports draw."""

__all__: list[str] = []
