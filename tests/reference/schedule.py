"""Appendix B, written out case by case."""

import math


def interp(a, b, t):
    return b + 0.5 * (a - b) * (1 + math.cos(math.pi * t))


def weights_at(p, a, z, align, joint, polish):
    if p <= a:
        return [interp(align[i], joint[i], p / a) for i in range(3)]
    if p < z:
        return [interp(joint[i], polish[i], (p - a) / (z - a)) for i in range(3)]
    return list(polish)
