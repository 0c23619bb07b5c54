"""Several languages, plainly: the share of each in training, and retrieval between all of them."""

import math


def share(sizes, number, temperature):
    """Arivazhagan et al. (2019), Section 3: p_l is proportional to (D_l / sum of all D)^(1/T)."""
    total = sum(sizes)
    return (sizes[number] / total) ** (1 / temperature) / sum((size / total) ** (1 / temperature) for size in sizes)


def recall(queries, candidates):
    """How often the nearest candidate by cosine is the query's own translation; no ties are looked for."""
    found = 0
    for row, query in enumerate(queries):
        cosines = [
            sum(a * b for a, b in zip(query, other)) / math.hypot(*query) / math.hypot(*other) for other in candidates
        ]
        found += cosines.index(max(cosines)) == row
    return found / len(queries)


def zero_shot(vectors, source):
    """The mean recall over all directions between two languages other than `source`."""
    others = [code for code in vectors if code != source]
    recalls = [recall(vectors[one], vectors[other]) for one in others for other in others if one != other]
    return sum(recalls) / len(recalls)
