"""What both adapters share, free of any framework.

`dispatch` starts a routed `call`, which fails over and reports its outcome;
`query` says which text of a conversation is routed; `prices` knows list prices;
`pool` makes the router over an adapter's candidates; `feedback` finds the
decision on an answer; `options` says what one call may ask, `rules` who may
answer which conversation, `sessions` who has read it before; `attempts` says whom
to ask once more when all have failed; `live` keeps workers in touch, `following`
lets them learn from each other's `journal`; `cooldown`, `deadline`, `errors` and
`steady` serve them.
"""

from mixllm_integrations.serving.call import RoutedCall
from mixllm_integrations.serving.deadline import run_within
from mixllm_integrations.serving.dispatch import Dispatcher
from mixllm_integrations.serving.feedback import RECORD_KEY, decision_id_of, record_of
from mixllm_integrations.serving.options import (
    CONTROLS,
    NO_CACHE,
    CacheUse,
    CallOptions,
    checked_controls,
)
from mixllm_integrations.serving.prices import ListPrice, list_price
from mixllm_integrations.serving.query import (
    Turn,
    conversation_tokens,
    routed_text,
    text_tokens,
)
from mixllm_integrations.serving.rules import RoutingRule, checked_rules, verdict

__all__ = [
    "CONTROLS",
    "NO_CACHE",
    "RECORD_KEY",
    "CacheUse",
    "CallOptions",
    "Dispatcher",
    "ListPrice",
    "RoutedCall",
    "RoutingRule",
    "Turn",
    "checked_controls",
    "checked_rules",
    "conversation_tokens",
    "decision_id_of",
    "list_price",
    "record_of",
    "routed_text",
    "run_within",
    "text_tokens",
    "verdict",
]
