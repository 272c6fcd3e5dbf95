"""Weights that ship with the package; ``NOTICE.md`` says whose and under what licence.

``encoder/`` is rebuilt by ``python -m mixllm_integrations.training.build_encoder``.
"""

__all__: list[str] = []
