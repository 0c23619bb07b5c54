"""Measuring models: retrieval, perplexity, multiple choice, generation, each in a module of its own."""
