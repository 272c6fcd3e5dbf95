"""Conversations in which several providers spoke, made readable for the next one."""

from mixllm_integrations.langchain.history.adapting import adapted, provider_of

__all__ = ["adapted", "provider_of"]
