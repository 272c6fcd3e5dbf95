"""The method, free of any framework.

Read the files from 1 to 10: 1 `encoder` → 2 `tagging` → 3 `context` →
4 `predictors` → 5 `pricing` → 6 `bandit` → 7 `waiting` → 8 `policy` →
9 `budget` → 10 `ledger`. `forecast` joins 3 to 5, `experience` is 6 as the
router uses it, `decide` is one decision; `pool` and `router` wire everything,
`snapshot` and `persistence` keep what was learned.
"""

__all__: list[str] = []
