"""Rules of the house: which conversations may go to whom, whatever the scores say."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import REQUIREMENTS, Requirement

__all__ = ["RoutingRule", "Verdict", "checked_rules", "verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    r"""A rule that narrows who may answer a conversation.

    It holds for every attempt of a call, for a forced candidate too, and for
    all that would be sent: the whole conversation, not only its last message.

    Parameters
    ----------
    when
        A function of the messages, in the framework's own form, that returns
        whether the rule applies; or a pattern, which applies if it is found in
        any message's text. An error in the function is raised to the caller,
        and nothing is sent.
    among
        Names of the only candidates that may answer then; ``None``: any.
    requires
        Abilities needed then: ``"tools"``, ``"vision"``,
        ``"structured_output"``.
    name
        What reasons call it.

    Raises
    ------
    ConfigurationError
        If a value cannot be used, or the rule narrows nothing.

    Examples
    --------
    >>> rule = RoutingRule(
    ...     when=re.compile(r"[\w.]+@[\w.]+"), among=["local"], name="personal data"
    ... )
    >>> said = verdict([rule], [], ["ann@example.org"], lambda: ["local", "cloud"])
    >>> said.barred
    {'cloud': "the rule 'personal data' allows only 'local'"}
    """

    when: Callable[[Any], bool] | re.Pattern[str]
    among: Collection[str] | None = None
    requires: Collection[Requirement] = ()
    name: str = "unnamed"

    def __post_init__(self) -> None:
        if not callable(self.when) and not isinstance(self.when, re.Pattern):
            raise ConfigurationError(
                "when must be a function of the messages or a compiled pattern, not a "
                f"{type(self.when).__name__}"
            )
        if isinstance(self.among, str) or isinstance(self.requires, str):
            raise ConfigurationError(
                f"the rule {self.name!r} must list names, not be one string"
            )
        unknown = [word for word in self.requires if word not in REQUIREMENTS]
        if unknown:
            raise ConfigurationError(
                f"the rule {self.name!r} requires {unknown[0]!r}; use some of "
                f"{REQUIREMENTS}"
            )
        if self.among is None and not self.requires:
            raise ConfigurationError(
                f"the rule {self.name!r} narrows nothing: pass among or requires"
            )

    def applies(self, messages: Any, texts: Sequence[str]) -> bool:  # noqa: ANN401
        """Tell whether a conversation falls under the rule.

        Parameters
        ----------
        messages
            The conversation, for a function.
        texts
            The text of each message, for a pattern.

        Returns
        -------
        bool
            Whether it does.
        """
        if isinstance(self.when, re.Pattern):
            return any(self.when.search(text) for text in texts)
        return bool(self.when(messages))

    def renamed(self, old: str, new: str) -> "RoutingRule":
        """Return the rule for candidates of which one has another name.

        Parameters
        ----------
        old, new
            Its names.

        Returns
        -------
        RoutingRule
            The same rule, if it does not name that candidate.
        """
        if self.among is None or old not in self.among:
            return self
        return replace(self, among=[new if n == old else n for n in self.among])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one conversation.

    Parameters
    ----------
    barred
        Who may not answer, and why.
    requires
        Abilities needed.
    allowed
        The only ones who may answer, as the rules call them; ``None``: no rule
        says so.
    """

    barred: dict[str, str]
    requires: tuple[Requirement, ...]
    allowed: frozenset[str] | None = None


def _itself(name: str, among: Collection[str]) -> str:  # noqa: ARG001
    return name


def verdict(
    rules: Sequence[RoutingRule],
    messages: Any,  # noqa: ANN401
    texts: Sequence[str],
    names: Callable[[], Sequence[str]],
    called: Callable[[str, Collection[str]], str] = _itself,
) -> Verdict:
    """Return what the rules say of a conversation.

    Parameters
    ----------
    rules
        All of them; each that applies narrows the choice further.
    messages
        The conversation in the framework's own form.
    texts
        The text of each message.
    names
        Returns all candidates; asked when all rules have been, since some may
        have come in the meantime.
    called
        Returns under which of these names a candidate goes, since one may have
        been given another name in the meantime.

    Returns
    -------
    Verdict
        Of all rules together.
    """
    applying = [rule for rule in rules if rule.applies(messages, texts)]
    requires = tuple(dict.fromkeys(word for rule in applying for word in rule.requires))
    barred: dict[str, str] = {}
    allowed: frozenset[str] | None = None
    for rule in applying:
        if rule.among is None:
            continue
        present = names()
        meant = {called(name, present) for name in rule.among}
        allowed = frozenset(rule.among) if allowed is None else allowed & {*rule.among}
        told = ", ".join(map(repr, rule.among)) or "nobody"
        for name in present:
            if name not in meant:
                barred.setdefault(name, f"the rule {rule.name!r} allows only {told}")
    return Verdict(barred, requires, allowed)


def checked_rules(given: object, names: Collection[str]) -> tuple[RoutingRule, ...]:
    """Return rules, if these are some.

    Parameters
    ----------
    given
        What was passed.
    names
        The candidates that a rule may name.

    Returns
    -------
    tuple of RoutingRule
        In their order.

    Raises
    ------
    ConfigurationError
        If one is no rule, or names nobody that is there.
    """
    if isinstance(given, RoutingRule):
        given = (given,)
    if not isinstance(given, Collection) or isinstance(given, str):
        raise ConfigurationError(
            f"rules must be a list of RoutingRule, not a {type(given).__name__}"
        )
    for rule in given:
        if not isinstance(rule, RoutingRule):
            raise ConfigurationError(
                f"rules must be RoutingRule objects, not a {type(rule).__name__}"
            )
        unknown = sorted(set(rule.among or ()) - set(names))
        if unknown:
            raise ConfigurationError(
                f"the rule {rule.name!r} names {unknown[0]!r}, which is no candidate; "
                f"there are: {', '.join(map(repr, names))}"
            )
    return tuple(given)
