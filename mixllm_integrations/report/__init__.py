"""What happened: who answered, what it cost, how good it was.

`summarise` reads an event log; the HTML report will be drawn from the same.
"""

from mixllm_integrations.report.summary import CandidateSummary, Summary, summarise

__all__ = ["CandidateSummary", "Summary", "summarise"]
