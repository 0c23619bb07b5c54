"""From a source of parallel text to one dataset with a `translation` column, and to batches of pairs."""
