"""Analyses of an adapted Backpack's senses (Sections 4 and 5, Appendix G); every statistic is a function of arrays."""
