"""The paper's simulation: queries arrive, candidates are slow, late answers are void.

`command` is `mixllm benchmark latency`; `run` sends the same traffic to every
contestant. `speeds` says how fast candidates are, `simulation` lets time pass,
`contestants` choose; `judging` counts, `results` keeps, `goals` compares, and
`tables` prints and draws.
"""

__all__: list[str] = []
