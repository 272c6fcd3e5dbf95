"""The prior that ships: learned of the form of queries alone, and carefully."""

import numpy as np
import pytest

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.prior import QualityPrior
from mixllm_integrations.core.reading import read
from mixllm_integrations.training.build_prior import (
    PriorSample,
    learn_prior,
    main,
    read_sample,
)

ENCODER = StaticEncoder.load()
EASY, HARD = "Who painted it?", "What is (12 + 7) * 31 - 4 / 9 + 5 ?"


def sample(seed=0, *, slope=1.0, n=240, n_domains=4):
    """Return a data set whose queries with sums are harder by a slope."""
    rng = np.random.default_rng(seed)
    is_sum = rng.random(n) < 0.5
    texts = [
        f"{HARD if s else EASY} Case {'abcdefgh'[i % 8]}" for i, s in enumerate(is_sum)
    ]
    skill = np.array([-0.5, 0.0, 1.0])
    odds = skill + slope * np.where(is_sum, -1.0, 1.0)[:, None]
    quality = (rng.random((n, 3)) < 1 / (1 + np.exp(-odds))).astype(float)
    domains = tuple(f"d{i % n_domains}" for i in range(n))
    return PriorSample(read(texts, ENCODER), quality, domains)


def gap(prior):
    """Return how much easier the easy query looks."""
    ease = prior.ease(read([EASY, HARD], ENCODER))
    return float(ease[0] - ease[1])


def test_what_is_hard_for_all_models_is_learned_and_used():
    prior = learn_prior([sample(), sample(1)])
    assert gap(prior) > 1.0
    assert prior.fitted_strength > 0.5
    assert 0.0 < prior.cold_strength <= 0.5


def test_where_form_says_nothing_it_is_not_used():
    prior = learn_prior([sample(slope=0.0)])
    assert prior.cold_strength * abs(gap(prior)) < 0.1


def test_where_domains_contradict_each_other_it_is_not_used():
    one, other = sample(slope=1.5, n_domains=1), sample(1, slope=-1.5, n_domains=1)
    prior = learn_prior([one, other])
    assert prior.cold_strength == prior.fitted_strength == 0.0


def test_missing_labels_are_left_out():
    full = sample()
    quality = full.quality.copy()
    quality[::3, 1] = np.nan
    quality[:, 2] = np.nan
    prior = learn_prior([PriorSample(full.reading, quality, full.domains)])
    assert gap(prior) > 1.0


def test_the_same_data_give_the_same_prior():
    assert learn_prior([sample()]).revision == learn_prior([sample()]).revision


def test_one_domain_is_not_enough():
    with pytest.raises(ConfigurationError, match="at least two domains, not 1"):
        learn_prior([sample(n_domains=1)])


# --- files ---------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {
            "query_id": i,
            "query": HARD if i % 2 else f"{EASY} {i}",
            "domain": f"d{i % 3}",
            "model": model,
            "quality": float(i % 2 == 0) if model != "b" or i % 5 else None,
        }
        for i in range(120)
        for model in ("a", "b", "rare")
        if model != "rare" or i < 9
    ]
    path = tmp_path / "answers.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_file_is_read_as_one_row_per_query_without_rare_models(file):
    found = read_sample(file, encoder=ENCODER)
    assert found.quality.shape == (120, 2)
    assert np.isnan(found.quality[:, 1]).sum() == 24
    assert found.domains[:4] == ("d0", "d1", "d2", "d0")


def test_the_command_writes_a_prior_and_what_it_is_made_of(file, tmp_path, capsys):
    assert main(["--data", str(file), "--out", str(tmp_path / "prior")]) == 0
    prior = QualityPrior.load(tmp_path / "prior")
    assert prior.revision in capsys.readouterr().out
    assert '"answers"' in (tmp_path / "prior" / "prior.json").read_text("utf-8")


def test_a_file_that_is_missing_or_another_one_is_named(file, tmp_path, capsys):
    assert main(["--data", str(tmp_path / "no.parquet")]) == 2
    assert "no.parquet" in capsys.readouterr().err
    (tmp_path / "text.parquet").write_text("text")
    assert main(["--data", str(tmp_path / "text.parquet")]) == 2
    assert "text.parquet cannot be read" in capsys.readouterr().err
