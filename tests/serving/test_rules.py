"""Rules narrow who may answer, whatever the scores and the caller say."""

import re

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving import RoutingRule, checked_rules, verdict

EMAIL = re.compile(r"[\w.]+@[\w.]+")
LOCAL = RoutingRule(when=EMAIL, among=["local"], name="personal data")
NAMES = ["local", "cloud", "other"]


def said(rules, *texts, messages=()):
    return verdict(rules, messages, texts, lambda: NAMES)


def test_a_rule_that_does_not_apply_says_nothing():
    assert said([LOCAL], "What is 2 + 2?").barred == {}


def test_a_pattern_applies_wherever_in_the_conversation_it_is_found():
    found = said([LOCAL], "Write to ann@example.org", "And now?")
    assert set(found.barred) == {"cloud", "other"}
    assert "'personal data' allows only 'local'" in found.barred["cloud"]


def test_a_function_sees_the_messages_as_they_are():
    seen = []
    rule = RoutingRule(when=lambda m: seen.append(m) or False, among=["local"])
    said([rule], "text", messages=["a message"])
    assert seen == [["a message"]]


def test_two_rules_leave_only_whom_both_allow():
    both = [LOCAL, RoutingRule(when=lambda _: True, among=["local", "cloud"])]
    assert set(said(both, "ann@example.org").barred) == {"cloud", "other"}
    assert set(said(both, "nothing").barred) == {"other"}


def test_rules_that_allow_nobody_together_bar_everybody():
    both = [LOCAL, RoutingRule(when=lambda _: True, among=["cloud"])]
    assert set(said(both, "ann@example.org").barred) == set(NAMES)


def test_a_rule_may_require_an_ability():
    rule = RoutingRule(when=re.compile("weather"), requires=["tools"])
    assert said([rule, rule], "the weather").requires == ("tools",)


def test_an_error_in_a_rule_is_raised_so_that_nothing_is_sent():
    def broken(messages):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        said([RoutingRule(when=broken, among=["local"])], "text")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"when": "a string", "among": ["local"]}, "compiled pattern"),
        ({"when": EMAIL, "among": "local"}, "not be one string"),
        ({"when": EMAIL}, "narrows nothing"),
        ({"when": EMAIL, "requires": ["wings"]}, "'wings'"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(wrong, told):
    with pytest.raises(ConfigurationError, match=told):
        RoutingRule(**wrong)


def test_a_rule_that_names_nobody_there_is_refused_with_who_is():
    with pytest.raises(ConfigurationError, match=r"'local'.*'cloud'"):
        checked_rules([LOCAL], ["cloud"])


@pytest.mark.parametrize("wrong", ["personal", 3, ["personal"]])
def test_what_is_no_rule_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="rules must be"):
        checked_rules(wrong, NAMES)


def test_one_rule_alone_is_a_list_of_one():
    assert checked_rules(LOCAL, NAMES) == (LOCAL,)
