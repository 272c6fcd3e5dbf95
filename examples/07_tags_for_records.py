"""Tags for records that have none: from a chat model, or without any.

A router that knows which domain a query belongs to sees who is good at what.
Tags tell it; they are wanted for fitting only, no model tags at run time. The
chat model of this example is scripted; any other goes in its place.
"""

import json
import tempfile
from pathlib import Path

from mixllm_integrations import Candidate, Router, RoutingRecord
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.training import ClusterTagger, LLMTagger, tag_records

SMALL, LARGE = Candidate("small", 0.1, 0.4), Candidate("large", 2.0, 10.0)
THINGS = ("tides", "rainbows", "yeast", "glaciers", "magnets", "volcanoes")
QUERIES = [
    *(f"What is {n} plus {3 * n}?" for n in range(11, 41)),
    *(f"Explain how {a} and {b} work." for a in THINGS for b in THINGS if a < b),
    *(f"Explain to a child how {thing} work." for thing in THINGS),
]

records = [
    RoutingRecord(query, name, quality=quality, output_tokens=tokens)
    for query in QUERIES
    for name, quality, tokens in (
        ("small", 1.0 if "plus" in query else 0.4, 60),
        ("large", 0.9, 250),
    )
]


def answer(messages: list) -> str:
    """Answer as a model would that was asked for tags."""
    tag = "arithmetic" if "plus" in str(messages[-1].content) else "natural science"
    return json.dumps([{"tag": tag}])


# 1. A chat model. Its answers are kept in a folder: a run that was stopped goes on
#    where it was, and nothing is paid for twice.
model = ScriptedChatModel(answers=answer)
with tempfile.TemporaryDirectory() as folder:
    for run in (1, 2):
        tagger = LLMTagger(model, cache=Path(folder) / "tags")
        tagged = tag_records(records, tagger)
        print(f"run {run}: {len(model.calls)} requests so far")
print("tags:", sorted({tag for record in tagged for tag in record.tags}))

# 2. Clusters of the queries, where no model is to be asked.
clustered = tag_records(records, ClusterTagger(n_clusters=2))
print("clusters:", sorted({tag for record in clustered for tag in record.tags}))

# 3. Either goes into a fit like records that were tagged by hand.
router = Router([SMALL, LARGE], willingness_to_pay=0.01).fit(tagged)
for query in ("What is 7 plus 21?", "Explain how tides and comets work."):
    print(query, "->", router.route(query).candidate)
