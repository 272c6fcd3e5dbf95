"""What is fitted before a stream begins, and what all labels would have told.

A world is one split of one data set: 20 % are held out, a part of the rest is
labelled offline, the others are asked one after the other. What needs no
feedback is predicted here in batches, once for all streams of the world.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.online.streams import BINARY_STREAMS, Ground, Stream
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.encoder import Encoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.prior import QualityPrior
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, FloatArray

__all__ = [
    "OURS",
    "USUAL_SHARE",
    "Expected",
    "Site",
    "Start",
    "World",
    "WorldSettings",
    "available_learners",
    "offline_share",
    "plays",
    "start_of",
]

USUAL_SHARE = 0.3
_OFFLINE_SHARES: Mapping[str, float] = {"refined-70/30": 0.7, "refined-5/95": 0.05}

# Our own learners: what they are, as options of the router.
OURS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "ours, no refit": {},
    "ours, bayes": {"binary_feedback": "bayes"},
    "ours, policy gradient": {"binary_feedback": "policy_gradient"},
    "ours, thompson": {"exploration_form": "thompson"},
}

Start = Literal["usual", "newcomer", "unseen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    """How worlds are made.

    Parameters
    ----------
    predictor
        Kind of the routers' predictors.
    prior
        Of candidates without labels; learned without the data set at hand.
    encoder
        Of routers and peers; ``None``: the shipped one.
    refit_every
        After how many queries routers fit their heads anew.
    informed_every
        After how many somebody does who is told all labels.
    n_steps
        The longest a stream is, but for those of the paper.
    n_main_steps
        The longest those are; ``None``: as long as there are queries.
    """

    predictor: str = "auto"
    prior: QualityPrior | Literal["none"] = "none"
    encoder: Encoder | None = None
    refit_every: int = 1_000
    informed_every: int = 2_000
    n_steps: int = 4_000
    n_main_steps: int | None = None

    def router(
        self,
        candidates: Iterable[Candidate],
        seed: int,
        options: Mapping[str, Any] | None = None,
    ) -> Router:
        """Return a router that knows nothing yet.

        Parameters
        ----------
        candidates
            Whom to choose from.
        seed
            Of all that it draws.
        options
            What else it is told.
        """
        return Router(
            candidates,
            encoder=self.encoder,
            predictor=self.predictor,
            prior=self.prior,
            seed=seed,
            **(options or {}),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What somebody expects of every candidate, at list prices.

    Parameters
    ----------
    quality, cost
        For the queries of the stream, shape ``(n_steps, n_candidates)``.
    test_quality, test_cost
        For the queries held out.
    """

    quality: FloatArray
    cost: FloatArray
    test_quality: FloatArray
    test_cost: FloatArray


@dataclass(frozen=True, slots=True)
class Site:
    """Which world it is.

    Parameters
    ----------
    seed
        Of the split and of everything that is drawn.
    share
        How much of the training split is labelled offline.
    pool
        Who competes usually.
    newcomer
        Who joins in the stream of that name.
    """

    seed: int
    share: float
    pool: tuple[str, ...]
    newcomer: str


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """One split, with all that was fitted on it.

    Parameters
    ----------
    site
        Which one.
    offline
        What is labelled beforehand.
    ground
        What the streams are made of, at full length.
    streams
        By name.
    embeddings
        Of the offline queries, those asked, and those held out.
    unseen
        The domains that the stream of that name lacks offline.
    routers
        Fitted on the offline part, by how they start and by the learner.
    idle
        What those expect that learn nothing more, by how they start.
    refits
        What a router expects that was fitted on all labels up to a query, by
        what happens to the labels; each with the number of queries.
    hindsight
        What is expected of each query by a router fitted on the labels of half
        of the other ones, and of the offline part.
    """

    site: Site
    offline: BenchmarkTable
    ground: Ground
    streams: Mapping[str, Stream]
    embeddings: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
    unseen: tuple[str, ...]
    routers: Mapping[tuple[Start, str], Router] = field(repr=False)
    idle: Mapping[Start, Expected] = field(repr=False)
    refits: Mapping[str, tuple[tuple[int, Expected], ...]] = field(repr=False)
    hindsight: Mapping[str, Expected] = field(repr=False)

    def start_of(self, stream: str) -> Start:
        """Return how routers start in a stream."""
        return start_of(stream)

    def labels_of(self, stream: str) -> str:
        """Return which labels the informed see in a stream."""
        return "degraded" if stream == "degraded" else "plain"


def offline_share(stream: str) -> float:
    """Return how much of the training split a stream has labelled offline."""
    return _OFFLINE_SHARES.get(stream, USUAL_SHARE)


def plays(learner: str, stream: str) -> bool:
    """Tell whether a learner differs from another one in a stream.

    How binary feedback is learned from counts where there is some.
    """
    is_of_binary = "binary_feedback" in OURS.get(learner, ())
    return stream in BINARY_STREAMS or not is_of_binary


def available_learners(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of our learners whose options this router has, defaults apart.

    Parameters
    ----------
    names
        Of learners; those that are not ours are left as they are.
    """
    return tuple(n for n in names if n not in OURS or _are_of_interest(OURS[n]))


def start_of(stream: str) -> Start:
    """Return how routers start in a stream."""
    starts: Mapping[str, Start] = {"newcomer": "newcomer", "unseen-domains": "unseen"}
    return starts.get(stream, "usual")


def _are_of_interest(options: Mapping[str, Any]) -> bool:
    """Tell whether the router knows these options, and they are not its defaults."""
    usual = signature(Router).parameters
    if options and all(n in usual and usual[n].default == options[n] for n in options):
        return False
    try:
        Router([Candidate("any", 1.0, 1.0)], prior="none", **options)
    except (TypeError, ConfigurationError):
        return False
    return True
