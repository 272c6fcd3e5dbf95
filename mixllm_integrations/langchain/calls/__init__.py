"""One call of a routed model: what it asks, who is asked, what comes back.

Read `request` first: it carries a call from its arguments to its answer, and
`attempts` asks one candidate after the other with it.
"""

__all__: list[str] = []
