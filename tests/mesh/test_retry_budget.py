"""The budget of retries in any order of calls, retries, outcomes and waits, beside a model that forgets nothing."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from osdisco.mesh import Outcome, RetryBudget
from osdisco.mesh.retry import Balance

WINDOW = 10
NOT_TOLD = {Outcome.CANCELLED}
"""Of these nothing is concluded."""


class BudgetMachine(RuleBasedStateMachine):
    """The model keeps every call and retry by its second, and every failure since the last success.

    Shares are quarters, which floats hold exactly.
    """

    @initialize(
        share=st.sampled_from([0.0, 0.25, 1.0]),
        per_second=st.sampled_from([0.0, 0.25, 1.0]),
        failures=st.integers(1, 4),
    )
    def begin(self, share: float, per_second: float, failures: int) -> None:
        self.budget = RetryBudget(share=share, per_second=per_second, window=WINDOW, failures=failures)
        self.balance = Balance(self.budget)
        self.now = 1000.0
        self.calls, self.retries = Counter[int](), Counter[int]()
        self.failed_at: list[float] = []

    def window(self) -> range:
        return range(int(self.now) - WINDOW + 1, int(self.now) + 1)

    def left(self) -> float:
        calls, retries = (sum(count[second] for second in self.window()) for count in (self.calls, self.retries))
        return self.budget.per_second * WINDOW + self.budget.share * calls - retries

    @property
    def hopeless(self) -> bool:
        return len(self.failed_at) >= self.budget.failures and self.now - self.failed_at[0] >= Balance.HOPELESS

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.0, 9.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(times=st.integers(1, 5))
    def call(self, times: int) -> None:
        for _ in range(times):
            self.balance.deposit(self.now)
        self.calls[int(self.now)] += times

    @rule()
    def retry(self) -> None:
        may = not self.hopeless and self.left() >= 1
        assert self.balance.withdraw(self.now) is may
        self.retries[int(self.now)] += may

    @rule(outcome=st.sampled_from([*Outcome, Outcome.FAILED, Outcome.TIMEOUT]))
    def learn(self, outcome: Outcome) -> None:
        self.balance.learn(outcome, self.now)
        if outcome is Outcome.OK:
            self.failed_at.clear()
        elif outcome not in NOT_TOLD:
            self.failed_at.append(self.now)

    @invariant()
    def it_has_what_the_model_has(self) -> None:
        if hasattr(self, "balance"):
            assert self.balance.seen(self.now) == self.balance.left(self.now) == self.left()
            assert self.balance.hopeless(self.now) is self.hopeless


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
