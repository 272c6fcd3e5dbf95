"""A fit on threads, in processes and on a cluster is the fit on one thread."""

import os
import threading
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from mixllm_integrations.core import learning, parallel
from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.parallel import alone, map_apart, n_jobs, quietly
from mixllm_integrations.core.predictors import forest, selection
from mixllm_integrations.core.predictors.base import label_groups
from mixllm_integrations.core.predictors.linear import RidgePredictor
from mixllm_integrations.core.predictors.mlp import MlpPredictor
from mixllm_integrations.core.router import Router

LONG = 30.0


@pytest.fixture(scope="module")
def records(world):
    """Return records of which every candidate has another number."""
    found = world.sample(240, seed=0).records()
    return [
        record
        for i, record in enumerate(found)
        if record.candidate != "lawyer" or i % 2
        if record.candidate != "all-round" or i % 5
    ]


def saved(router, folder):
    """Return every file of a saved router, but for when it was saved."""
    router.save(folder)
    files = {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted(Path(folder).rglob("*"))
        if f.is_file()
    }
    assert sum(map(len, files.values())) > 100_000
    return files


def fitted(world, records):
    return Router(world.candidates, seed=3).fit(records)


@pytest.fixture(scope="module")
def usual(world, records, tmp_path_factory):
    """Return the files of a router that was fitted here, on one thread."""
    return saved(fitted(world, records), tmp_path_factory.mktemp("usual") / "router")


@pytest.fixture
def places(monkeypatch):
    """Return where the parts of a fit were run, in this process."""
    seen = []

    def watched(work, *arguments):
        seen.append(threading.current_thread().name)
        return alone(work, *arguments)

    monkeypatch.setattr(parallel, "alone", watched)
    return seen


# --- where the parts are run -----------------------------------------------------


def test_what_joblib_was_told_decides_how_many_jobs_there_are():
    assert n_jobs(-1) == -1
    for told in ({"backend": "sequential"}, {"n_jobs": 1}, {"backend": "threading"}):
        with joblib.parallel_config(**told):
            assert n_jobs(-1) is None


def test_results_are_in_the_order_of_what_was_given():
    given = [(n, 2) for n in range(20)]
    with joblib.parallel_config("threading", n_jobs=4):
        assert map_apart(pow, given) == [n**2 for n in range(20)]
    assert map_apart(pow, []) == []


def test_without_a_word_to_joblib_all_parts_run_on_the_callers_thread(
    world, records, places
):
    fitted(world, records)
    assert set(places) == {threading.current_thread().name}
    # 3 folds x (ridge and network by 3 groups of queries, forest, neighbours),
    # then the final heads; for quality and for length.
    assert len(places) >= 2 * 3 * (2 * 3 + 2)


def _inner_jobs(_):
    run = joblib.Parallel(n_jobs=-1, prefer="threads")
    return run._effective_n_jobs(), [
        library["num_threads"] for library in threadpool_info()
    ]


@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_a_part_starts_no_threads_of_its_own(backend):
    with joblib.parallel_config(backend, n_jobs=2):
        for jobs, threads in map_apart(_inner_jobs, [(0,), (1,)]):
            assert jobs == 1
            assert set(threads) == {1}


# --- the same to the last bit ----------------------------------------------------


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_threads_and_processes_learn_the_same_to_the_last_bit(
    world, records, usual, tmp_path, backend
):
    with joblib.parallel_config(backend, n_jobs=2):
        found = saved(fitted(world, records), tmp_path / "router")
    assert found == usual


def test_a_fit_on_threads_is_on_threads(world, records, places):
    with joblib.parallel_config("threading", n_jobs=2):
        fitted(world, records)
    assert len(set(places) - {threading.current_thread().name}) > 1


@pytest.fixture(scope="module")
def cluster():
    """Return a Dask cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def _place(_):
    time.sleep(0.2)
    return os.getpid()


@pytest.mark.network
def test_a_dask_cluster_learns_the_same_to_the_last_bit(
    world, records, usual, tmp_path, cluster, monkeypatch
):
    monkeypatch.setattr(forest, "_WORTH_THREADS", 100)  # its trees go there as well
    with joblib.parallel_config(backend="dask"):
        others = set(map_apart(_place, [(n,) for n in range(8)]))
        found = saved(fitted(world, records), tmp_path / "router")
    assert os.getpid() not in others
    assert len(others) == 2
    assert found == usual


@pytest.mark.network
def test_an_error_on_a_cluster_is_the_typed_error_it_was_there(cluster):
    with (
        joblib.parallel_config(backend="dask"),
        pytest.raises(UnknownCandidateError, match="'nobody'") as caught,
    ):
        map_apart(_refuse, [("nobody",), ("nobody",)])
    assert caught.value.known == ("somebody",)


def _refuse(name):
    raise UnknownCandidateError(name, ["somebody"])


@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_an_error_of_a_part_is_the_typed_error_it_was_there(backend):
    with (
        joblib.parallel_config(backend, n_jobs=2),
        pytest.raises(UnknownCandidateError, match="'nobody'"),
    ):
        map_apart(_refuse, [("nobody",), ("nobody",)])


def test_after_a_part_that_fails_the_router_is_as_it_was(
    world, records, monkeypatch, tmp_path
):
    router = fitted(world, records)
    before = router.predict(["Explain sum?"]).quality

    def fail(*_arguments, **_options):
        raise ConfigurationError("a part failed")

    monkeypatch.setattr(selection.KINDS["knn"], "fit", fail)
    with (
        joblib.parallel_config("threading", n_jobs=2),
        pytest.raises(ConfigurationError, match="a part failed"),
    ):
        router.fit(records[:300])
    np.testing.assert_array_equal(router.predict(["Explain sum?"]).quality, before)


# --- candidates that were labelled on other queries ------------------------------


@pytest.mark.parametrize("kind", [RidgePredictor, MlpPredictor])
def test_a_candidates_head_is_the_same_whoever_else_is_fitted(kind):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 5)), rng.random((300, 3))
    y[:100, 1] = y[200:, 2] = np.nan
    together = kind.fit(x, y, seed=1)
    for column in range(3):
        own = kind.fit(x, y[:, [column]], seed=1)
        np.testing.assert_allclose(
            together.predict(x)[:, [column]], own.predict(x), atol=1e-5
        )


def test_candidates_are_of_one_group_if_they_were_labelled_on_the_same_queries():
    nan = np.nan
    y = np.array([[0.1, nan, 0.3, nan], [0.4, 0.5, 0.6, 0.7]])
    assert sorted(g.tolist() for g in label_groups(y)) == [[0, 2], [1, 3]]


# --- settings of the whole process -----------------------------------------------


def test_what_one_thread_still_needs_another_does_not_restore():
    first_in, second_out = threading.Event(), threading.Event()
    kept = []

    def first():
        with quietly():
            first_in.set()
            assert second_out.wait(LONG)
            warnings.warn("still ignored", ConvergenceWarning, stacklevel=1)
            kept.append(True)

    before = warnings.filters
    thread = threading.Thread(target=first)
    thread.start()
    assert first_in.wait(LONG)
    with quietly():
        pass
    second_out.set()
    thread.join(LONG)
    assert kept == [True]
    assert warnings.filters is before


def test_a_refit_in_the_background_keeps_to_its_own_thread(
    world, records, places, monkeypatch
):
    router = Router(world.candidates, seed=3, refit_every=1, predictor="ridge")
    router.fit(records)
    seen, done = [], threading.Event()
    real = learning.refitted

    def watched(*arguments, **options):
        seen.append(n_jobs(-1))  # as its forests will ask
        places.clear()
        try:
            return real(*arguments, **options)
        finally:
            seen.extend(set(places))
            done.set()

    monkeypatch.setattr(learning, "refitted", watched)
    with joblib.parallel_config("threading", n_jobs=2):
        decision = router.route("Explain sum?")
        router.record_feedback(decision.id, 1.0)
        assert done.wait(LONG)
    assert seen == [None, "refit"]
