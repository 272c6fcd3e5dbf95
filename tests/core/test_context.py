import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core import context as module
from mixllm_integrations.core import features
from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.reading import digests, read
from mixllm_integrations.core.traits import query_traits
from mixllm_integrations.core.wordpieces import shipped_tokenizer

ENCODER = StaticEncoder.load()
N_FORM = len(FORM_FEATURES)
UNTAGGED: list[tuple[str, ...]] = [()] * 300


class ConstantEncoder:
    """Sees no difference between texts."""

    id, revision, dimension = "constant", "1", 3

    def encode(self, texts):
        return np.tile(np.float32([1.0, 0.0, 0.0]), (len(texts), 1))


def fitted(queries, tags, traits, *, encoder=ENCODER, n_domains=20, seed=0):
    traits = np.asarray(traits, dtype=np.float64)
    return ContextModel.fit(
        read(queries, encoder),
        tags,
        traits if traits.ndim == 2 else traits[:, None],
        encoder=encoder,
        n_domains=n_domains,
        seed=seed,
    )


@pytest.fixture(scope="module")
def sample(world):
    return world.sample(300, seed=1)


@pytest.fixture(scope="module")
def known(sample):
    """A model and contexts out of fold, fitted on the small world."""
    return fitted(sample.queries, sample.tags, query_traits(sample.expected_quality))


def difficulty(model, contexts):
    return contexts[:, model.blocks["difficulty"]][:, 0]


def purity(model, queries, truth):
    """Return how often a query is of the group that its domain mostly holds."""
    posterior = model.posterior(read(queries, ENCODER))
    said = posterior.argmax(axis=1)
    groups = np.array(truth)
    right = 0
    for domain in np.unique(said):
        _, counts = np.unique(groups[said == domain], return_counts=True)
        right += counts.max()
    return right / len(groups)


# --- before a fit --------------------------------------------------------------


def test_an_unfitted_model_gives_the_embedding_and_a_constant():
    model = ContextModel.unfitted(ENCODER.dimension)
    reading = read(["Why?"], ENCODER)
    found = model.contexts(reading)
    assert found.shape == (1, model.dimension) == (1, ENCODER.dimension + 1)
    assert np.array_equal(found[0, :-1], reading.embeddings[0])
    assert found[0, -1] == 1.0
    assert model.posterior(reading) is None
    assert model.blocks == {"embedding": slice(0, 256), "constant": slice(256, 257)}
    assert np.array_equal(model.training_contexts(reading), found)


def test_very_few_queries_fit_nothing_but_the_embedding():
    queries = [f"query {i}" for i in range(7)]
    model, contexts = fitted(queries, [("a",), ("b",)] * 3 + [()], range(7))
    assert model.scorer is None
    assert np.array_equal(contexts, model.contexts(read(queries, ENCODER)))


# --- after one -----------------------------------------------------------------


def test_a_context_is_made_of_its_blocks(known, sample):
    model, contexts = known
    n_axes = model.axes.shape[1]
    assert set(model.domains.names) == {"math", "law", "code", "food"}
    widths = {name: block.stop - block.start for name, block in model.blocks.items()}
    # Three candidates differ in two directions; the world's few kinds of
    # characters follow one another in 7 ways, each a count and a share.
    assert widths == {
        "embedding": n_axes,
        "posterior": 4,
        "difficulty": 1,
        "contrasts": 2,
        "form": N_FORM,
        "shape": 14,
        "constant": 1,
    }
    reading = read(sample.queries[:5], ENCODER)
    found = {name: model.contexts(reading)[:, b] for name, b in model.blocks.items()}
    expected = (reading.embeddings - model.centre) @ model.axes
    np.testing.assert_allclose(found["embedding"], expected, atol=1e-6)
    posterior = model.posterior(reading)
    np.testing.assert_allclose(found["posterior"], posterior, atol=1e-6)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0)
    assert np.array_equal(found["form"], model.form.apply(reading))
    shape = model.shape.features(model.shape.apply(reading))
    assert np.array_equal(found["shape"], shape)
    assert (found["constant"] == 1.0).all()
    assert contexts.shape == (300, model.dimension)


@pytest.mark.parametrize("tags", ["some", "none"])
@pytest.mark.parametrize("n_domains", [0, 1, 3])
@pytest.mark.parametrize("n_traits", [1, 3])
def test_blocks_tile_the_vector(sample, tags, n_domains, n_traits):
    traits = np.random.default_rng(0).normal(size=(150, n_traits))
    given = sample.tags[:150] if tags == "some" else UNTAGGED[:150]
    model, contexts = fitted(sample.queries[:150], given, traits, n_domains=n_domains)
    blocks = list(model.blocks.values())
    assert [b.start for b in blocks] == [0, *(b.stop for b in blocks[:-1])]
    assert blocks[-1].stop == model.dimension == contexts.shape[1]
    assert model.blocks["contrasts"].stop - model.blocks["contrasts"].start == (
        n_traits - 1
    )


def test_traits_that_text_tells_have_nearly_one_scale_out_of_fold(known):
    model, contexts = known
    scores = model.blocks["difficulty"].start, model.blocks["contrasts"].stop
    spread = contexts[:, slice(*scores)].std(axis=0) / module._TRAIT_WEIGHT
    assert ((spread > 0.95) & (spread <= 1.0)).all()


def test_a_trait_weighs_what_its_scores_follow_it_beyond_chance():
    truth = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]] * 4)
    scores = truth.copy()
    scores[:, 0] *= 2.0
    scores[:8, 1] *= -1.0  # correlation 0, with scores as large as ever
    # 16 queries, correlation 1: 1 - 4 / 16 = 0.75, over a spread of 2.
    found = module._trait_scale(scores, truth)
    assert found == pytest.approx([0.375, 0.0], abs=1e-6)
    assert module._trait_scale(-scores, truth).tolist() == [0.0, 0.0]


def test_the_axes_are_directions_of_length_one_at_right_angles(known):
    axes = known[0].axes
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-5)
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    assert (largest > 0).all()


def test_the_axes_are_those_of_most_variance_worked_out_by_hand():
    # Spread 2 along (0, 1), 1 along (1, 0), none along the third.
    points = np.float32([[0, 2, 0], [0, -2, 0], [1, 0, 0], [-1, 0, 0]])
    assert module._leading_axes(points).T.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_the_posterior_finds_the_domain_of_fresh_queries(known, world):
    fresh = world.sample(200, seed=2)
    found = known[0].posterior(read(fresh.queries, ENCODER))
    names = known[0].domains.names
    said = [(names[i],) for i in found.argmax(axis=1)]
    hits = np.mean([a == b for a, b in zip(said, fresh.tags, strict=True)])
    assert hits > 0.95


def test_the_difficulty_follows_the_ease_of_fresh_queries(known, world):
    fresh = world.sample(200, seed=3)
    found = difficulty(known[0], known[0].contexts(read(fresh.queries, ENCODER)))
    ease = fresh.expected_quality.mean(axis=1)
    assert np.corrcoef(found, ease)[0, 1] > 0.6


def test_the_contrasts_follow_whom_a_fresh_query_suits(known, sample, world):
    model, _ = known
    fresh = world.sample(200, seed=3)
    found = model.contexts(read(fresh.queries, ENCODER))[:, model.blocks["contrasts"]]
    both = np.vstack([sample.expected_quality, fresh.expected_quality])
    truth = query_traits(both)[300:, 1:]
    for column in range(2):
        assert abs(np.corrcoef(found[:, column], truth[:, column])[0, 1]) > 0.6


def test_a_level_that_all_traits_share_changes_no_context(sample):
    traits = np.random.default_rng(0).normal(size=(300, 2))
    low, high = (
        fitted(sample.queries, sample.tags, t)[1] for t in (traits, traits + 1)
    )
    np.testing.assert_allclose(low, high, atol=1e-3)


def test_training_contexts_are_out_of_fold(sample):
    # Tags are noise, so nothing can be known of them. Contexts in which each
    # query's own label had a say would know them by heart.
    rng = np.random.default_rng(0)
    noise = rng.normal(size=300)
    labels = rng.integers(0, 4, size=300)
    tags = [("abcd"[i],) for i in labels]
    model, contexts = fitted(sample.queries, tags, noise)
    inside = model.contexts(read(sample.queries, ENCODER))
    truth = np.array([model.domains.names.index(tag) for (tag,) in tags])

    def hits(found):
        return (found[:, model.blocks["posterior"]].argmax(axis=1) == truth).mean()

    assert hits(inside) > 0.7
    assert hits(contexts) < 0.4  # chance: 0.25


def test_an_ease_that_is_noise_is_left_out_of_contexts(sample):
    # Its scores out of fold hold nothing but other queries' labels.
    noise = np.random.default_rng(0).normal(size=300)
    model, contexts = fitted(sample.queries, [()] * 300, noise)
    assert not difficulty(model, contexts).any()
    assert not difficulty(model, model.contexts(read(sample.queries, ENCODER))).any()


def test_only_the_scores_of_training_contexts_differ_from_serving(known, sample):
    model, contexts = known
    serving = model.contexts(read(sample.queries, ENCODER))
    apart = np.abs(contexts - serving)
    for name in {*model.blocks} - {"posterior", "difficulty", "contrasts"}:
        assert (apart[:, model.blocks[name]] < 1e-6).all()
    for name in ("difficulty", "contrasts"):
        assert apart[:, model.blocks[name]].max() > 1e-2


@pytest.mark.parametrize("tags", [(), ("only",)])
def test_without_two_tags_there_is_no_posterior(sample, tags):
    queries = sample.queries[:20]
    model, contexts = fitted(queries, [tags] * 20, np.linspace(-1, 1, 20))
    assert model.domains is None
    assert model.posterior(read(queries, ENCODER)) is None
    assert model.blocks["posterior"] == slice(*[model.axes.shape[1]] * 2)
    assert contexts.shape[1] == model.dimension


# --- domains without tags ------------------------------------------------------


def test_untagged_groups_of_queries_are_found_in_fresh_ones(sample, world):
    model, contexts = fitted(sample.queries, UNTAGGED, np.zeros(300))
    fresh = world.sample(200, seed=2)
    assert 2 <= len(model.domains.names) <= 6  # 50 queries a domain
    assert purity(model, fresh.queries, [tag for (tag,) in fresh.tags]) > 0.9
    np.testing.assert_allclose(contexts[:, model.blocks["posterior"]].sum(axis=1), 1.0)


def test_one_tag_for_all_says_as_little_as_none(sample):
    one, none = (
        fitted(sample.queries[:120], tags, np.zeros(120))[0]
        for tags in ([("only",)] * 120, UNTAGGED[:120])
    )
    assert one.domains.names == none.domains.names != ()


@pytest.mark.parametrize("tagged", [True, False])
def test_domains_can_be_turned_off(sample, tagged):
    tags = sample.tags if tagged else UNTAGGED
    model, contexts = fitted(sample.queries, tags, np.zeros(300), n_domains=0)
    assert model.domains is None
    assert model.posterior(read(["Why?"], ENCODER)) is None
    assert np.isfinite(contexts).all()
    assert model.seen_scores.shape == (300, 1)


def test_copies_of_one_query_fit(world):
    queries = ["Explain the sum of a triangle?"] * 200
    traits = np.random.default_rng(0).normal(size=(200, 3))
    model, contexts = fitted(queries, UNTAGGED[:200], traits)
    assert model.domains is None
    assert model.seen.size == 1
    assert np.isfinite(contexts).all()
    assert np.isfinite(model.contexts(read(["else 7?"], ENCODER))).all()


@pytest.mark.parametrize("texts", [["", " "], ["a", "b"], ["\ud800", "ß"]])
def test_queries_with_nothing_in_them_fit(texts):
    traits = np.linspace(-1, 1, 120)
    model, contexts = fitted(texts * 60, UNTAGGED[:120], traits)
    assert np.isfinite(contexts).all()
    assert np.isfinite(model.contexts(read(["Why (7)?"], ENCODER))).all()


def test_an_encoder_that_sees_no_difference_leaves_shape_to_tell_groups_apart():
    queries = [f"({i} + 1) * 2 = ?" if i % 2 else f"tell me of {i}" for i in range(120)]
    model, _ = fitted(queries, UNTAGGED[:120], np.zeros(120), encoder=ConstantEncoder())
    found = model.posterior(
        read(["(9 + 9) * 9 = ?", "say it to us"], ConstantEncoder())
    )
    assert set(found.argmax(axis=1).tolist()) == {0, 1}


# --- odd and few queries -------------------------------------------------------


def test_queries_without_tags_train_the_rest(sample):
    tags = [row if i % 3 else () for i, row in enumerate(sample.tags)]
    model, _ = fitted(sample.queries, tags, np.zeros(300))
    bare = [i for i in range(300) if i % 3 == 0]
    found = model.posterior(read([sample.queries[i] for i in bare], ENCODER))
    names = [model.domains.names[i] for i in found.argmax(axis=1)]
    assert (
        np.mean([n == sample.tags[i][0] for n, i in zip(names, bare, strict=True)])
        > 0.9
    )


def test_no_more_domains_than_asked_for(sample):
    model, _ = fitted(sample.queries[:60], sample.tags[:60], np.zeros(60), n_domains=2)
    assert len(model.domains.names) == 2


def test_equal_queries_for_the_encoder_and_equal_ease_still_fit(sample):
    queries = sample.queries[:12]
    model, contexts = fitted(
        queries, sample.tags[:12], np.zeros(12), encoder=ConstantEncoder()
    )
    assert model.axes.shape[1] == 1
    assert np.isfinite(contexts).all()
    assert np.abs(difficulty(model, contexts)).max() < 1e-6


def test_a_fit_is_the_same_for_the_same_seed(sample):
    given = sample.queries[:50], sample.tags[:50], np.linspace(-1, 1, 50)
    first, again, other = (fitted(*given, seed=s)[1] for s in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


ODD = st.one_of(
    st.text(max_size=80),
    st.sampled_from(["?" * 5_000, "7 " * 3_000, "\n" * 500, "ß" * 99, "a" * 9_000, ""]),
)


@settings(max_examples=50)
@given(texts=st.lists(ODD, min_size=1, max_size=4))
def test_any_text_has_a_bounded_context_alone_as_among_others(known, texts):
    model, _ = known
    found = model.contexts(read(texts, ENCODER))
    assert found.shape == (len(texts), model.dimension)
    assert np.abs(found).max() < 30
    alone = np.vstack([model.contexts(read([text], ENCODER)) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-4)


def test_the_form_of_an_odd_query_is_cut_at_five_deviations(known):
    found = known[0].contexts(read(["? " * 4_000], ENCODER))[0]
    form, shape = (found[known[0].blocks[name]] for name in ("form", "shape"))
    limit = features._FORM_WEIGHT * features._FORM_LIMIT
    assert np.abs(form).max() == pytest.approx(limit)
    assert np.abs(shape).max() <= features._SHAPE_WEIGHT * features._SHAPE_LIMIT


def test_the_scorer_speaks_of_the_shipped_pieces(known):
    assert known[0].scorer.n_pieces == shipped_tokenizer().size


# --- contexts of a newcomer's training queries ---------------------------------


def test_no_texts_have_no_contexts(known):
    model, reading = known[0], read([], ENCODER)
    assert model.contexts(reading).shape == (0, model.dimension)
    assert model.training_contexts(reading).shape == (0, model.dimension)
    assert model.posterior(reading).shape == (0, 4)


def test_what_was_seen_is_known_by_its_digest(known, sample):
    model, _ = known
    own = np.unique(digests(read(sample.queries, ENCODER)))
    assert np.array_equal(model.seen, own)
    assert model.seen_scores.shape == (own.size, 4 + 3)


def test_a_newcomer_is_trained_on_the_same_contexts_as_the_others(world):
    queries = world.sample(200, seed=0).queries
    reading = read(queries, ENCODER)
    traits = np.random.default_rng(0).normal(size=(len(queries), 2))
    tags = [("a",) if i % 2 else ("b",) for i in range(len(queries))]
    model, honest = fitted(queries, tags, traits, n_domains=4)
    again = model.training_contexts(reading)
    np.testing.assert_allclose(again, honest, atol=2e-2)  # kept as float16
    assert np.abs(model.contexts(reading) - honest).max() > 0.1  # in-sample differ
    fresh = read(["A question that was in no training set."], ENCODER)
    np.testing.assert_array_equal(model.training_contexts(fresh), model.contexts(fresh))


def test_a_newcomer_with_known_and_fresh_queries_gets_each_its_own(known, sample):
    model, honest = known
    texts = ["A fresh one?", sample.queries[7], "And another", sample.queries[3]]
    reading = read(texts, ENCODER)
    found, serving = model.training_contexts(reading), model.contexts(reading)
    np.testing.assert_allclose(found[[0, 2]], serving[[0, 2]], atol=1e-12)
    np.testing.assert_allclose(found[[1, 3]], honest[[7, 3]], atol=2e-2)
