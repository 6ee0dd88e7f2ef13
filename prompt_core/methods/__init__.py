"""Prompt-learning methods and their baselines under one interface (:class:`prompt_core.methods.base.Method`)."""
