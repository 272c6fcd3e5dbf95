"""How a report looks: one page of HTML with its style and its figures inside.

The figures are SVG that takes its colours from the page's style, so they follow a
dark scheme and a printer, are read out loud, and need no script. A drawing library
in the page would weigh 4 MB and ask for rights that its strict content security
policy does not give.
"""

__all__: list[str] = []
