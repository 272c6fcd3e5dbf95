"""Learning online, measured on streams of real outcomes.

`command` is `mixllm benchmark online`; `run` shows every stream to every learner.
`worlds` and `streams` say what is asked, `fits` what is fitted beforehand,
`learners` and `peers` who chooses; `scores` judges, `results` keeps, `goals`
compares, `tables` prints, and `load` times one update.
"""

__all__: list[str] = []
