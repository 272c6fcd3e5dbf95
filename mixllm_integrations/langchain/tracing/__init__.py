"""What tracers see of a routed call: runs, spans, and whose feedback is whose."""

__all__: list[str] = []
