"""What was aimed at and what was reached, read off the results."""

import json
from pathlib import Path
from typing import NamedTuple

from sensia_trainer.experiments.matrix import differing
from sensia_trainer.languages import language
from sensia_trainer.utils.markdown import table


RESULTS = Path(__file__).resolve().parents[1] / "results"
SIDES = ("source_to_target", "target_to_source")
BOTH_KEPT = ("id", "et", "sw", "tr", "zh")


class Aim(NamedTuple):
    """`reached` are the numbers that must all be at least, or at most, the bound."""

    name: str
    bound: float
    reached: list[float]
    at_most: bool = False
    percent: bool = False

    @property
    def met(self) -> bool:
        return max(self.reached) <= self.bound if self.at_most else min(self.reached) >= self.bound

    def row(self) -> list[str]:
        shown = [f"{value:+.1%}" if self.percent else f"{value:.3f}" for value in self.reached]
        bound = f"{self.bound:.1%}" if self.percent else f"{self.bound:g}"
        sign = "at most" if self.at_most else "at least"
        return [self.name, f"{sign} {bound}", " / ".join(shown), "reached" if self.met else "missed"]


def read(name):
    """The result of a run of a matrix; None where it was not run."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def flores(name):
    """What a run of a matrix found on FLORES-200 devtest; empty where it was not run."""
    return (read(name) or {"evaluation": {"flores": {}}})["evaluation"]["flores"]


def control_of(code):
    """The run by the LM loss alone of a released model, by the same recipe otherwise and on the same pairs; None where
    it was not made."""
    found = [read(f"recommended/{code}-{method}") for method in ("sensia", "lm-only")]
    if None in found:
        return None
    recipes, pairs = zip(*((one["recipe"], one["metrics"]["data"]["fingerprint"]) for one in found), strict=True)
    another = set(differing(recipes[0] | {"method": "lm-only"}, recipes[1])) - {"eval_strategy", "eval_steps"}
    return None if another or pairs[0] != pairs[1] else found[1]


def both_ways(found, metric):
    return [found[f"{metric}_{side}"] for side in SIDES]


def micro_aims():
    """Of the models of 2,400 steps by the recommended recipe."""
    of_base = json.loads((RESULTS / "yardsticks" / "id.json").read_text(encoding="utf-8"))["flores"]
    indonesian = flores("recommended/id-sensia")
    for kind in ("sense", "context"):
        found = both_ways(indonesian, f"{kind}_recall")
        yield Aim(f"Indonesian, translations found by {kind}s, from / into English", 0.9, found)
    beyond = both_ways(indonesian, "sense_beyond_overlap")
    yield Aim("Indonesian, by senses where token overlap finds none", 0.75, beyond)
    for code in ("et", "sw", "tr"):
        found = flores(f"recommended/{code}-sensia")
        for kind in ("sense", "context"):
            recalls = zip(both_ways(found, f"{kind}_recall"), both_ways(found, "overlap_recall"), strict=True)
            above = [aligned - overlap for aligned, overlap in recalls]
            yield Aim(f"{language(code).name}, by {kind}s above token overlap", 0.25, above)
    for code in BOTH_KEPT:
        found, control = flores(f"recommended/{code}-sensia"), control_of(code)
        name = language(code).name
        if control:
            more = found["target_bits_per_byte"] - control["evaluation"]["flores"]["target_bits_per_byte"]
            yield Aim(f"{name}, bits a byte above the LM loss alone", 0.03, [more], at_most=True)
        if scratch := flores(f"from_scratch/{code}-text-of-2400"):
            more = found["target_bits_per_byte"] - scratch["target_bits_per_byte"]
            yield Aim(f"{name}, bits a byte above a model from scratch on as much text", 0.0, [more], at_most=True)
        english = found["source_bits_per_byte"] / of_base["source_bits_per_byte"] - 1
        yield Aim(f"{name}, change of English bits a byte", 0.03, [english], at_most=True, percent=True)


def large_aims():
    """Of SmolLM2-135M-Instruct with induced senses and its adaptation to Indonesian."""
    after = json.loads((RESULTS / "induction" / "smollm2-135m.json").read_text(encoding="utf-8"))["after"]
    base, induced, adapted = (flores(f"smollm2/{name}") for name in ("base", "induced", "sensia"))
    delta, fine_tuned = flores("smollm2_whole/delta"), flores("smollm2/fine-tuning")
    english = "source_bits_per_byte"
    at_most = {"at_most": True}
    yield Aim("mean cosine between induced senses of a word", 0.3, [after["ambiguous_cosine"]], **at_most)
    yield Aim("what induced senses add, of the state they are added to", 0.05, [after["contribution"]], percent=True)
    change = [induced[english] / base[english] - 1]
    yield Aim("induced, change of English bits a byte", 0.005, change, percent=True, **at_most)
    yield Aim("adapted, by senses, from / into English", 0.85, both_ways(delta, "sense_recall"))
    change = [adapted[english] / base[english] - 1]
    yield Aim("adapted, change of English bits a byte", 0.05, change, percent=True, **at_most)
    if fine_tuned:
        more = adapted["target_bits_per_byte"] - fine_tuned["target_bits_per_byte"]
        yield Aim("adapted, Indonesian bits a byte above dense fine-tuning", 0.0, [more], **at_most)
    tasks = json.loads((RESULTS / "smollm2" / "sensia.json").read_text(encoding="utf-8"))["evaluation"]["tasks"]
    (xcopa,) = (one["scores"]["cond"]["interval"] for one in tasks if one["task"] == "xcopa")
    yield Aim("adapted, lower end of the interval of XCOPA in Indonesian (chance: 0.5)", 0.5, xcopa[:1])


def aims_table():
    """Every aim with what was reached; of several numbers, the worst counts."""
    rows = [aim.row() for aims in (micro_aims(), large_aims()) for aim in aims]
    return table(["", "aim", "found", ""], rows)
