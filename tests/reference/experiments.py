"""Tables of experiments, in the plainest words."""


def frontier(points):
    """Indices of the points (cost, gain) that no other point is at least as good as in both, and better in one."""
    kept = []
    for i, (cost, gain) in enumerate(points):
        passed = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        if not passed:
            kept.append(i)
    return kept
