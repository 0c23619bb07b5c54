"""Analyses of an adapted Backpack's senses (Sections 4 and 5, Appendix G); every statistic is a function of arrays."""

# What can be asked for: readings of the sense probabilities, and benchmarks of the senses themselves.
DEFINITIONS = ("magnitude", "contextual", "contextual_share", "predictive")
BENCHMARKS = ("disambiguation", "substitution", "steering")
