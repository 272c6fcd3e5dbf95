"""A spending budget behind a chat model."""

import pytest

from mixllm_integrations import BudgetExceededError
from mixllm_integrations.testing import ManualClock


@pytest.fixture
def spent(pool):
    """Make a chat model whose budget pays for nobody."""

    def make(**scripts):
        model = pool(**scripts)
        model.router.spending_budget = 0.0
        model.router.when_spent = "stop"
        return model

    return make


async def test_a_spent_budget_is_raised_as_itself_in_every_mode(spent, asked, load_of):
    model = spent()
    with pytest.raises(BudgetExceededError, match="spending budget"):
        model.invoke("q")
    with pytest.raises(BudgetExceededError):
        await model.ainvoke("q")
    with pytest.raises(BudgetExceededError):
        list(model.stream("q"))
    assert not asked(model, "best")
    assert not asked(model, "second")
    assert load_of(model) == 0


def test_it_is_so_while_a_candidate_rests_as_well(spent):
    model = spent(best={"errors": [TimeoutError()]})
    model.router.spending_budget = None
    assert model.invoke("q").content == "From the second."
    model.dispatcher.cooldown._clock = ManualClock(0.0)
    model.router.spending_budget = 0.0
    with pytest.raises(BudgetExceededError) as caught:
        model.invoke("q")
    assert set(caught.value.excluded) == {"best", "second"}


def test_what_answers_have_cost_is_spent(pool):
    model = pool()
    model.router.spending_budget = 1.0
    costs = [model.invoke("q").response_metadata["mixllm"]["cost"] for _ in range(3)]
    found = model.router.spending
    assert found.spent == pytest.approx(sum(costs))
    assert found.reserved == 0.0


def test_a_failed_attempt_gives_back_what_it_had_reserved(pool):
    model = pool(best={"errors": [TimeoutError()]})
    model.router.spending_budget = 1.0
    record = model.invoke("q").response_metadata["mixllm"]
    assert record["candidate"] == "second"
    assert model.router.spending.spent == pytest.approx(record["cost"])
    assert model.router.spending.reserved == 0.0
    assert model.router.spending.calls == 2
