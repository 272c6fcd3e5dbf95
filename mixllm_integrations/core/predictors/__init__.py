"""Stage 4: what each candidate's answer will be worth, and how long it will be.

`base` is the seam; `linear`, `forest`, `knn`, `mlp` and `ensemble` are the
kinds; `selection` chooses among them by cross-validation and `heads` holds the
pair of each candidate: one head for quality, one for length.
"""

__all__: list[str] = []
