"""Many callers at once, over real clients, at servers that misbehave.

`chaos` returns what happened as `figures`; `servers` misbehave, `callers` ask, and
`books` adds up the event log.
"""

__all__: list[str] = []
