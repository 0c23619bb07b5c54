"""Tables of a report, from results written by hand."""

from sensia_trainer.evaluation.report_tables import pairs_tables


def test_recall_where_overlap_fails_stands_beside_the_number_of_those_sentences():
    found = {"source": "eng_Latn", "target": "ind_Latn", "pairs": 1012, "truncated": 0, "fingerprint": "f"}
    found |= {"beyond_overlap_pairs_source_to_target": 457, "sense_beyond_overlap_source_to_target": 0.25}
    text = "\n".join(pairs_tables([{"name": "a", "flores": found, "items": {}}]))
    assert "| recall@1 where overlap fails, sense vectors, source → target | 0.250 |" in text
    assert "| sentences where overlap fails, source → target | 457 |" in text
