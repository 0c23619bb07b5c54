"""What an adapted model can do: retrieval, perplexity, multiple choice."""
