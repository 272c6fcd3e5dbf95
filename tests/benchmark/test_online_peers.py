"""Bandits from PyPI as learners in streams."""

from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations.benchmark.online.learners import play
from mixllm_integrations.benchmark.online.peers import (
    PEERS,
    OnlineLinUCB,
    OnlineParetoBandit,
    Setting,
    available_peers,
)
from mixllm_integrations.benchmark.online.streams import Ground, make_stream
from mixllm_integrations.benchmark.peers import installed_peers
from mixllm_integrations.core.encoder import StaticEncoder

pytestmark = pytest.mark.skipif(
    len(installed_peers()) < 2, reason="peers are not installed"
)
SMALL, LARGE, POET = 0, 1, 2


@pytest.fixture(scope="module")
def setting_for(world):
    offline = world.select(range(60))
    rows = np.arange(240) % 60 + 60
    asked, test = world.select(rows), world.select(range(120, 180))
    ground = Ground(asked, test, world.names, "poet", np.full(240, LARGE), seed=3)
    embeddings = [
        StaticEncoder.load().encode(t.queries) for t in (offline, asked, test)
    ]

    def made(name, quality=None, value=1.0):
        stream = make_stream(name, ground)
        if quality is not None:
            answers = np.tile(np.asarray(quality, float), (240, 1))
            stream = replace(stream, quality=answers, said=answers)
        return Setting(stream, offline, embeddings, value, seed=0)

    return made


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_turns_to_whoever_answers_best_now(setting_for, peer):
    # Offline each is best in a domain; in this stream only the poet is right.
    setting = setting_for("refined-30/70", quality=[0.0, 0.0, 1.0])
    played = play(setting.stream, PEERS[peer](setting), pause_every=1_000)
    assert (played.chosen[:5] != POET).any()
    assert (played.chosen[-50:] == POET).mean() > 0.8
    assert played.held_out.quality is None
    assert played.held_out.chosen.shape == (60,)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", ["newcomer", "leaver"])
def test_a_peer_asks_nobody_who_is_away(setting_for, peer, name):
    setting = setting_for(name)
    played = play(setting.stream, PEERS[peer](setting), pause_every=1_000)
    present = setting.stream.present()
    assert present[np.arange(240), played.chosen].all()
    assert present[-1, played.held_out.chosen].all()


def test_linucb_earns_quality_less_cost(setting_for):
    # Everybody is right; at this value the large model's cost eats all of it.
    setting = setting_for("refined-30/70", quality=[1.0, 1.0, 1.0], value=1e-5)
    played = play(setting.stream, OnlineLinUCB(setting), pause_every=1_000)
    assert (played.chosen == SMALL).mean() > 0.9


def test_linucb_turns_away_from_whoever_became_dear(setting_for):
    setting = setting_for("refined-30/70", quality=[1.0, 1.0, 1.0], value=1e-4)
    cost = setting.stream.cost.copy()
    cost[:, SMALL] *= 100.0
    dear = replace(setting, stream=replace(setting.stream, cost=cost))
    played = play(dear.stream, OnlineLinUCB(dear), pause_every=1_000)
    assert played.chosen[0] == SMALL
    assert (played.chosen[-100:] == SMALL).mean() < 0.1


def test_paretobandit_is_told_of_a_price_and_weighs_cost_by_what_it_earns(setting_for):
    dear = OnlineParetoBandit(setting_for("price-cut", value=1e-5))
    free = OnlineParetoBandit(setting_for("price-cut", value=1e6))
    assert dear.extra()["cost_penalty"] > free.extra()["cost_penalty"]
    before = dear._router._get_normalized_cost("large")
    (change,) = dear._setting.stream.changes
    dear.change(change)
    assert dear._router._get_normalized_cost("large") < before == 1.0


def test_whoever_is_no_peer_or_installed_stays(monkeypatch):
    names = ("ours", "mabwiser LinUCB", "paretobandit")
    assert available_peers(names) == names
    module = "mixllm_integrations.benchmark.online.peers.installed_peers"
    monkeypatch.setattr(module, lambda: ("paretobandit",))
    assert available_peers(names) == ("ours", "paretobandit")
