"""Sense adaptation of Backpack language models: losses, schedule, trainer, data, evaluation, analysis."""
