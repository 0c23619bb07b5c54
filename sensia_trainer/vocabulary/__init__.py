"""The target language's own words: a continued tokenizer, translations from the bitext, rows that start from them."""
