"""Where a candidate is strong, what a query is about, which queries were seen."""

import numpy as np
import pytest

from mixllm_integrations import (
    Candidate,
    NotFittedError,
    Router,
    RoutingRecord,
    UnknownCandidateError,
)
from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.strengths import strengths_of


def test_who_was_made_good_at_sums_is_strongest_there(small_world):
    found = small_world.router.strengths("small")
    domains = {row.name: row for row in found.domains}
    assert set(domains) == {"sums", "law", "poems"}
    assert found.domains[0].name == "sums"
    assert domains["sums"].ahead > domains["law"].ahead
    assert domains["law"].rival in {"medium", "large"}
    assert domains["law"].rank == 3
    assert found.overall.queries == 240 - _doubles(small_world.train)


def _doubles(records):
    queries = [r.query for r in records if r.candidate == "small"]
    return len(queries) - len(set(queries))


def test_queries_may_be_given(small_world):
    queries = ["add the numbers 17 and 23"] * 12
    found = small_world.router.strengths("small", queries)
    assert found.overall.queries == 12
    assert [row.name for row in found.domains] == ["sums"]


def test_groups_of_form_are_told_apart(small_world):
    queries = ["may a tenant leave"] * 15 + ["how much is 3 times 4"] * 15
    forms = {
        row.name: row for row in small_world.router.strengths("small", queries).forms
    }
    assert forms["with numbers"].queries == 15


def test_a_rank_is_counted_from_the_best():
    quality = np.array([[0.5, 0.9, 0.7]] * 3)
    model = ContextModel.unfitted(4)
    contexts = np.ones((3, 5))
    found = strengths_of("c", ["a", "b", "c"], quality, contexts, model)
    assert found.overall.rank == 2
    assert (found.overall.rival, found.overall.rival_quality) == ("b", 0.9)
    assert found.overall.ahead == pytest.approx(-0.2)
    assert found.domains == found.forms == ()


def test_who_is_alone_is_ahead_of_nobody():
    contexts = np.ones((2, 5))
    found = strengths_of(
        "a", ["a"], contexts[:, :1], contexts, ContextModel.unfitted(4)
    )
    assert (found.overall.rival, found.overall.ahead, found.overall.rank) == (
        None,
        0,
        1,
    )


def test_an_unknown_candidate_is_told_with_those_that_are_known(small_world):
    with pytest.raises(UnknownCandidateError, match="'huge'"):
        small_world.router.strengths("huge")


def test_strengths_need_a_fit():
    with pytest.raises(NotFittedError):
        Router([Candidate("a", 1, 1)]).strengths("a")


def test_a_router_without_contexts_asks_for_queries(small_world, tmp_path):
    with pytest.raises(NotFittedError, match="pass some"):
        small_world.router.strengths("small", [])


def test_a_query_is_about_its_domain(small_world):
    about = small_world.router.about("add the numbers 4711 and 1234")
    assert next(iter(about)) == "sums"
    assert sum(about.values()) == pytest.approx(1.0)
    assert Router([Candidate("a", 1, 1)]).about("anything") == {}


def test_training_queries_are_known_again(small_world):
    query = small_world.train[0].query
    seen = small_world.router.has_seen([query, "something else altogether"])
    assert seen.tolist() == [True, False]
    assert Router([Candidate("a", 1, 1)]).has_seen([query]).tolist() == [False]


def test_a_record_handed_over_names_its_domain(small_world):
    decision = small_world.router.route("add the numbers 4711 and 1234")
    assert small_world.router.hand_over(decision.id)["domain"] == "sums"


def test_without_domains_there_is_no_name():
    router = Router([Candidate("a", 1, 1)])
    decision = router.route("hello")
    assert router.hand_over(decision.id)["domain"] is None
    router.fit([RoutingRecord(f"query {i}", "a", float(i % 2)) for i in range(20)])
    assert router.hand_over(router.route("hello").id)["domain"] is None
