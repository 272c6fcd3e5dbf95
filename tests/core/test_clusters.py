import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core import clusters as module
from mixllm_integrations.core.clusters import cluster_queries
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.reading import read

ENCODER = StaticEncoder.load()
NOTHING = [np.zeros(0, dtype=np.int32)]


def places(n, n_groups=3, *, seed=0, spread=0.1):
    """Return points around corners that lie far apart, and whose they are."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(n) % n_groups)
    points = 5.0 * np.eye(8)[group] + rng.normal(size=(n, 8)) * spread
    return points.astype(np.float32), group


def clustered(points, *, ids=None, n_domains=20, seed=0):
    given = NOTHING * len(points) if ids is None else ids
    return cluster_queries(given, points, n_domains=n_domains, seed=seed)


def assert_sound(names, shares, n):
    assert len(set(names)) == len(names) == shares.shape[1]
    assert all(name.strip() for name in names)
    assert shares.shape[0] == n
    if names:
        assert set(np.unique(shares)) == {0.0, 1.0}
        assert (shares.sum(axis=1) == 1.0).all()
        assert (shares.sum(axis=0) > 0).all()


# --- how many ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "n_domains", "expected"),
    [
        (0, 20, 0),
        (99, 20, 0),  # 50 a domain: not enough for two
        (100, 20, 2),
        (299, 20, 5),
        (299, 3, 3),
        (299, 1, 0),
        (299, 0, 0),
        (2_000, 40, 15),
    ],
)
def test_there_are_as_many_domains_as_queries_and_wishes_allow(n, n_domains, expected):
    points, _ = places(n, spread=1.0)
    names, shares = clustered(points, n_domains=n_domains)
    assert len(names) == expected
    assert_sound(names, shares, n)


def test_groups_that_lie_apart_are_found():
    points, group = places(300)
    names, shares = clustered(points, n_domains=3)
    pairs = set(zip(shares.argmax(axis=1).tolist(), group.tolist(), strict=True))
    assert len(pairs) == len(names) == 3


def test_a_part_of_the_queries_is_enough_to_find_them(monkeypatch):
    monkeypatch.setattr(module, "_FITTED_ON", 60)
    points, group = places(300)
    names, shares = clustered(points, n_domains=3)
    pairs = set(zip(shares.argmax(axis=1).tolist(), group.tolist(), strict=True))
    assert len(pairs) == 3
    assert_sound(names, shares, 300)


def test_clusters_are_the_same_for_the_same_seed():
    points, _ = places(300, spread=3.0)
    first, again, other = (clustered(points, seed=s)[1] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- queries that hardly differ ------------------------------------------------


def test_queries_at_one_place_make_no_domains():
    names, shares = clustered(np.ones((300, 8), dtype=np.float32))
    assert names == ()
    assert shares.shape == (300, 0)


def test_copies_of_few_queries_make_no_more_domains_than_these():
    points, group = places(300, 3, spread=0.0)
    names, shares = clustered(points)
    assert len(names) == 3
    assert len(set(zip(shares.argmax(axis=1), group, strict=True))) == 3


@settings(max_examples=25)
@given(apart=st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-4]), seed=st.integers(0, 99))
def test_copies_that_differ_by_rounding_alone_do_no_harm(apart, seed):
    points, _ = places(300, 3, spread=0.0, seed=seed)
    points[:, 0] += np.random.default_rng(seed).integers(0, 2, 300) * np.float32(apart)
    names, shares = clustered(points, seed=seed)
    assert len(names) >= 2
    assert_sound(names, shares, 300)


# --- names ---------------------------------------------------------------------


def test_a_domain_is_named_after_the_words_that_set_it_apart():
    texts = ["the integral of a prime", "the soup of onion, garlic"] * 50
    points, _ = places(100)
    points[:] = 0.0
    points[::2, 0] = 1.0
    names, shares = clustered(points, ids=read(texts, ENCODER).ids)
    maths, food = shares[0].argmax(), shares[1].argmax()
    assert {maths, food} == {0, 1}
    told = [set(name.split(": ")[1].split(", ")) for name in names]
    assert told[maths] == {"integral", "prime"}  # "the" is in both; "of", too
    assert told[food] == {"soup", "onion", "garlic"}
    assert [name.split(":")[0] for name in names] == ["1", "2"]


@pytest.mark.parametrize(
    "texts",
    [[""] * 2, ["1 + 2 = 3", "( x )"], ["为什么", "ßßß ß"], ["the same words"] * 2],
    ids=["blank", "no words", "foreign", "no difference"],
)
def test_a_domain_without_a_word_of_its_own_still_has_a_name(texts):
    points, _ = places(100)
    points[:] = 0.0
    points[::2, 0] = 1.0
    names, shares = clustered(points, ids=read(texts * 50, ENCODER).ids)
    assert names == ("1: no word of its own", "2: no word of its own")
    assert_sound(names, shares, 100)


def test_a_name_holds_no_word_that_is_nowhere_in_the_queries():
    texts = ["an egg of soup"] * 50 + ["1 2 3"] * 50
    points = np.repeat(np.eye(2, dtype=np.float32), 50, axis=0)
    names, shares = clustered(points, ids=read(texts, ENCODER).ids)
    soup = int(shares[0].argmax())
    assert names[soup] == f"{soup + 1}: soup"  # the other words are too short
    assert names[1 - soup] == f"{2 - soup}: no word of its own"
