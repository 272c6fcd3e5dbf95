"""What happened: who answered, what it cost, how good it was.

`summarise` reads totals from an event log; `make_report` all that there is to tell,
as a value that is one page of HTML, too::

    make_report(read_traffic(store)).to_html()
"""

from mixllm_integrations.report.full import Report, make_report
from mixllm_integrations.report.summary import CandidateSummary, Summary, summarise
from mixllm_integrations.report.traffic import read_traffic

__all__ = [
    "CandidateSummary",
    "Report",
    "Summary",
    "make_report",
    "read_traffic",
    "summarise",
]
