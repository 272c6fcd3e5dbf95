import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.tagging import Domains, RecordTagger, group_tags


class LetterEncoder:
    """Puts a text at the unit vector of its first letter's case-less place."""

    id, revision, dimension = "letters", "1", 26

    def __init__(self):
        self.asked = 0

    def encode(self, texts):
        self.asked += 1
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        rows[np.arange(len(texts)), [ord(t[0].lower()) - ord("a") for t in texts]] = 1
        return rows


def grouped(tags, n_domains, *, encoder=None, seed=0):
    return group_tags(tags, encoder or LetterEncoder(), n_domains=n_domains, seed=seed)


TAGGERS = {
    "records": RecordTagger({"q1": ("law", "tax"), "q2": ()}),
}


@pytest.mark.parametrize("tagger", TAGGERS.values(), ids=TAGGERS)
class TestEveryTagger:
    def test_gives_one_tuple_of_strings_per_query(self, tagger):
        found = tagger.tag(["q1", "q2", "never seen", "q1"])
        assert len(found) == 4
        assert all(isinstance(tag, str) for row in found for tag in row)
        assert found[0] == found[3]

    def test_gives_nothing_for_nothing(self, tagger):
        assert tagger.tag([]) == []


def test_the_record_tagger_gives_what_was_recorded():
    found = TAGGERS["records"].tag(["q2", "q1", "never seen"])
    assert found == [(), ("law", "tax"), ()]


# --- tags to domains -----------------------------------------------------------


def test_few_tags_are_domains_themselves_and_nothing_is_embedded():
    encoder = LetterEncoder()
    tags = [("law",), ("law", "art"), (), ("art", "bio", "law", "law")]
    names, shares = grouped(tags, 3, encoder=encoder)
    # law in 3 queries, art in 2, bio in 1. Rows: all law; half each; no tags;
    # one of four tags each, law twice.
    assert names == ("law", "art", "bio")
    assert shares.tolist() == [
        [1.0, 0.0, 0.0],
        [0.5, 0.5, 0.0],
        [0.0, 0.0, 0.0],
        [0.5, 0.25, 0.25],
    ]
    assert encoder.asked == 0


def test_equally_frequent_tags_are_ordered_by_name():
    assert grouped([("zoo", "art"), ("art", "zoo")], 5)[0] == ("art", "zoo")


@pytest.mark.parametrize("tags", [[], [()], [("law",), ("law",)], [("law",), ()]])
def test_fewer_than_two_tags_make_no_domain(tags):
    names, shares = grouped(tags, 5)
    assert names == ()
    assert shares.shape == (len(tags), 0)


def test_alike_tags_share_a_domain_named_after_the_most_frequent():
    # l-words and a-words: two places in space, so two clusters. "law" (4) and
    # "art" (3) lead. The last query has two l-tags and one a-tag.
    tags = [("law",), ("law",), ("law", "lease"), ("art",), ("art",), ("law", "art")]
    tags.append(("lease", "lab", "ale"))
    names, shares = grouped(tags, 2)
    assert names == ("law", "art")
    np.testing.assert_allclose(
        shares,
        [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0.5, 0.5], [2 / 3, 1 / 3]],
    )


def test_tags_that_differ_in_case_only_are_no_reason_to_warn():
    # Three tags, one place in space: fewer places than domains asked for.
    names, shares = grouped([("Law",), ("law",), ("LAW",), ("law",)], 2)
    assert names == ("law",)
    assert shares.tolist() == [[1.0]] * 4


def test_tags_that_all_but_share_a_place_are_no_reason_to_warn():
    class Blurred(LetterEncoder):
        def encode(self, texts):
            rows = np.full((len(texts), 26), 0.2, dtype=np.float32)
            rows[:, 0] += [1e-8 * ord(text[0]) for text in texts]
            return rows

    names, shares = grouped([("a",), ("b",), ("c",), ("d",)], 3, encoder=Blurred())
    assert 1 <= len(names) <= 3
    assert shares.sum(axis=1).tolist() == [1.0] * 4


def test_one_domain_takes_all_tags():
    names, shares = grouped([("a",), ("b",), ("c", "a")], 1)
    assert names == ("a",)
    assert shares.tolist() == [[1.0]] * 3


def test_real_tags_of_one_field_come_together():
    tags = [
        ("calculus",),
        ("linear algebra",),
        ("algebra",),
        ("geometry",),
        ("contract law",),
        ("criminal law",),
        ("constitutional law",),
    ]
    names, shares = grouped(tags, 2, encoder=StaticEncoder.load())
    assert len(names) == 2
    groups = shares.argmax(axis=1)
    assert len(set(groups[:4])) == len(set(groups[4:])) == 1
    assert groups[0] != groups[-1]


TAG_ROWS = st.lists(
    st.lists(st.sampled_from("abcdefgh"), max_size=4).map(tuple), max_size=15
)


@given(tags=TAG_ROWS, n_domains=st.integers(1, 10))
def test_shares_of_a_query_sum_to_one_or_it_has_no_tags(tags, n_domains):
    names, shares = grouped(tags, n_domains)
    assert shares.shape == (len(tags), len(names))
    assert len(set(names)) == len(names) <= n_domains
    if names:
        expected = [1.0 if row else 0.0 for row in tags]
        np.testing.assert_allclose(shares.sum(axis=1), expected)
        assert (shares.sum(axis=0) > 0).all()  # no domain without a query


def test_the_seed_decides_the_domains():
    rng = np.random.default_rng(0)
    tags = [(f"{'abcdefghij'[i]}",) for i in rng.integers(0, 10, size=40)]
    first = grouped(tags, 4, seed=7)
    again = grouped(tags, 4, seed=7)
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])


# --- scores to a posterior -----------------------------------------------------


def test_the_posterior_is_a_softmax_of_sharpened_scores():
    domains = Domains(("a", "b"), np.array([0.5, 0.5]), np.log(3.0))
    # exp(ln 3 · 1) = 3 against exp(0) = 1.
    np.testing.assert_allclose(
        domains.posterior(np.array([[1.0, 0.0], [2.0, 2.0]])),
        [[0.75, 0.25], [0.5, 0.5]],
    )


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    st.floats(1.0, 40.0),
)
def test_a_posterior_sums_to_one_and_keeps_the_order_of_scores(scores, sharpness):
    given_scores = np.array(scores)
    domains = Domains(("a", "b", "c"), np.full(3, 1 / 3), sharpness)
    found = domains.posterior(given_scores)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    best = np.take_along_axis(found, given_scores.argmax(axis=1)[:, None], axis=1)
    assert (best[:, 0] == found.max(axis=1)).all()


def one_hot(labels, k=3):
    return np.eye(k)[labels]


def test_scores_that_are_always_right_are_trusted_most():
    truth = one_hot([0, 1, 2] * 10)
    domains = Domains.fit(("a", "b", "c"), truth, truth)
    assert domains.sharpness == pytest.approx(40.0)
    assert domains.posterior(truth).min(axis=1).max() < 1e-9


def test_scores_that_say_nothing_are_trusted_least():
    rng = np.random.default_rng(0)
    truth = one_hot(rng.integers(0, 3, size=600))
    domains = Domains.fit(("a", "b", "c"), truth, rng.normal(size=(600, 3)))
    assert domains.sharpness == pytest.approx(1.0)


def test_the_posterior_is_calibrated_where_scores_are_log_odds():
    # Scores of log(p) / 5 call for a sharpness of 5: the softmax is p again.
    rng = np.random.default_rng(1)
    p = rng.dirichlet([0.4, 0.4, 0.4], size=4_000)
    drawn = (rng.random((4_000, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    domains = Domains.fit(("a", "b", "c"), one_hot(drawn), np.log(p + 1e-12) / 5)
    assert domains.sharpness == pytest.approx(5.0, rel=0.2)
    found = domains.posterior(np.log(p + 1e-12) / 5)[:, 0]
    sure = found > 0.8
    assert found[sure].mean() == pytest.approx((drawn[sure] == 0).mean(), abs=0.04)


def test_queries_without_tags_do_not_count_in_the_base_rate():
    shares = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    domains = Domains.fit(("a", "b"), shares, shares)
    # Of three tagged queries, two and a half are about the first domain.
    np.testing.assert_allclose(domains.base_rate, [5 / 6, 1 / 6])
