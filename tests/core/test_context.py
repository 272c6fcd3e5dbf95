import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core import context as module
from mixllm_integrations.core.context import ContextModel, read
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.wordpieces import shipped_tokenizer

ENCODER = StaticEncoder.load()
N_FORM = len(FORM_FEATURES)
DIFFICULTY = -(N_FORM + 2)  # column: before the features of form and the constant


class ConstantEncoder:
    """Sees no difference between texts."""

    id, revision, dimension = "constant", "1", 3

    def encode(self, texts):
        return np.tile(np.float32([1.0, 0.0, 0.0]), (len(texts), 1))


def fitted(queries, tags, ease, *, encoder=ENCODER, n_domains=20, seed=0):
    return ContextModel.fit(
        read(queries, encoder),
        tags,
        np.asarray(ease, dtype=np.float64),
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
    ease = sample.expected_quality.mean(axis=1)
    return fitted(sample.queries, sample.tags, ease - ease.mean())


# --- reading -------------------------------------------------------------------


def test_a_reading_is_the_one_worked_out_by_hand():
    reading = read(["Why?", "", "a\nb\n", " \t\n"], ENCODER)
    assert [ids.size for ids in reading.ids] == [2, 0, 2, 0]
    assert reading.characters.tolist() == [4, 0, 4, 3]
    assert reading.lines.tolist() == [0, 0, 2, 1]
    assert reading.tokens.tolist() == [2, 0, 2, 0]
    assert reading.blank.tolist() == [False, True, False, True]
    np.testing.assert_allclose(np.linalg.norm(reading.embeddings, axis=1), 1, rtol=1e-5)


def test_the_short_cut_over_pieces_gives_what_the_encoder_gives():
    texts = ["Why is the sky blue?", "", "x" * 20_000]
    assert np.array_equal(read(texts, ENCODER).embeddings, ENCODER.encode(texts))


def test_an_encoder_of_ones_own_is_asked_for_the_embeddings():
    assert read(["a", "b"], ConstantEncoder()).embeddings.shape == (2, 3)


def test_what_is_no_text_is_a_type_error():
    with pytest.raises(TypeError, match="text 1 must be a str, not a int"):
        read(["fine", 3], ENCODER)


def test_no_texts_are_an_empty_reading(known):
    reading = read([], ENCODER)
    assert reading.blank.size == 0
    assert known[0].contexts(reading).shape == (0, known[0].dimension)


# --- before a fit --------------------------------------------------------------


def test_an_unfitted_model_gives_the_embedding_and_a_constant():
    model = ContextModel.unfitted(ENCODER.dimension)
    reading = read(["Why?"], ENCODER)
    found = model.contexts(reading)
    assert found.shape == (1, model.dimension) == (1, ENCODER.dimension + 1)
    assert np.array_equal(found[0, :-1], reading.embeddings[0])
    assert found[0, -1] == 1.0
    assert model.posterior(reading) is None


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
    assert model.dimension == contexts.shape[1] == n_axes + 4 + 1 + N_FORM + 1
    found = model.contexts(read(sample.queries[:5], ENCODER))
    reading = read(sample.queries[:5], ENCODER)
    np.testing.assert_allclose(
        found[:, :n_axes], (reading.embeddings - model.centre) @ model.axes, atol=1e-6
    )
    posterior = found[:, n_axes : n_axes + 4]
    np.testing.assert_allclose(posterior, model.posterior(reading), atol=1e-6)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0)
    assert (found[:, -1] == 1.0).all()


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
    found = known[0].contexts(read(fresh.queries, ENCODER))[:, DIFFICULTY]
    ease = fresh.expected_quality.mean(axis=1)
    assert np.corrcoef(found, ease)[0, 1] > 0.6


def test_training_contexts_are_out_of_fold(sample):
    # Ease and tags are noise, so nothing can be known of them. Contexts in which
    # each query's own label had a say would know them by heart.
    rng = np.random.default_rng(0)
    noise = rng.normal(size=300)
    labels = rng.integers(0, 4, size=300)
    tags = [("abcd"[i],) for i in labels]
    model, contexts = fitted(sample.queries, tags, noise)
    inside = model.contexts(read(sample.queries, ENCODER))
    n_axes = model.axes.shape[1]
    truth = np.array([model.domains.names.index(tag) for (tag,) in tags])

    def hits(found):
        return (found[:, n_axes : n_axes + 4].argmax(axis=1) == truth).mean()

    def follows(found):
        return np.corrcoef(found[:, DIFFICULTY], noise)[0, 1]

    assert hits(inside) > 0.7
    assert hits(contexts) < 0.4  # chance: 0.25
    assert follows(inside) > 0.6
    assert follows(contexts) < 0.2


def test_only_the_scores_of_training_contexts_differ_from_serving(known, sample):
    model, contexts = known
    serving = model.contexts(read(sample.queries, ENCODER))
    n_axes = model.axes.shape[1]
    same = np.r_[0:n_axes, n_axes + 5 : model.dimension]
    np.testing.assert_allclose(contexts[:, same], serving[:, same], atol=1e-6)
    assert not np.allclose(contexts[:, DIFFICULTY], serving[:, DIFFICULTY], atol=1e-3)


@pytest.mark.parametrize("tags", [(), ("only",)])
def test_without_two_tags_there_is_no_posterior(sample, tags):
    queries = sample.queries[:20]
    model, contexts = fitted(queries, [tags] * 20, np.linspace(-1, 1, 20))
    assert model.domains is None
    assert model.posterior(read(queries, ENCODER)) is None
    assert contexts.shape[1] == model.dimension == model.axes.shape[1] + N_FORM + 2


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
    assert np.abs(contexts[:, DIFFICULTY]).max() < 1e-6


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
    form = found[-(N_FORM + 1) : -1]
    limit = module._FORM_WEIGHT * module._FORM_LIMIT
    assert np.abs(form).max() == pytest.approx(limit)


def test_the_scorer_speaks_of_the_shipped_pieces(known):
    assert known[0].scorer.n_pieces == shipped_tokenizer().size


def test_a_newcomer_is_trained_on_the_same_contexts_as_the_others(world) -> None:
    queries = world.sample(200, seed=0).queries
    reading = read(queries, StaticEncoder.load())
    ease = np.random.default_rng(0).normal(size=len(queries))
    model, honest = ContextModel.fit(
        reading,
        [("a",) if i % 2 else ("b",) for i in range(len(queries))],
        ease,
        encoder=StaticEncoder.load(),
        n_domains=4,
        seed=0,
    )
    again = model.training_contexts(reading)
    np.testing.assert_allclose(again, honest, atol=2e-2)  # kept as float16
    assert np.abs(model.contexts(reading) - honest).max() > 0.1  # in-sample differ
    fresh = read(["A question that was in no training set."], StaticEncoder.load())
    np.testing.assert_array_equal(model.training_contexts(fresh), model.contexts(fresh))
