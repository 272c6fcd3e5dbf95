"""Many callers at once, over real clients, at servers that misbehave.

`chaos` returns what happened as `figures`; `servers` misbehave, `callers` ask, and
`books` adds up the event log. `siblings`, `recovery` and `killing` measure `workers`
that share a log: how soon they know what others were told, how soon a new one knows
all, and whether those that are killed lose anything.
"""

__all__: list[str] = []
