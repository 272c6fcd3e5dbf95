"""Labels one's own traffic: every candidate answers, the answers are graded.

`prompts` says what is asked and `logs` reads it from logs; `asking` asks one
candidate, `till` holds the spending limit, `workbook` keeps what was paid for;
`scorers`, `code_tests` and `judges` grade; `adaptive` chooses what to ask next;
`estimate` says before what it will cost; `run` is `collect`, which does all of
it and writes records.
"""

__all__: list[str] = []
