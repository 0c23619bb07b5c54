"""The three-phase schedule of loss weights and temperatures (paper, Appendix B and C).

Pure functions of the training progress p = step / total steps: nothing is remembered between steps, so a resumed run
reads the same numbers as an uninterrupted one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple


PHASES = ("align", "joint", "polish")


class PhaseState(NamedTuple):
    """What one training step needs to know: its phase, the three loss weights and the two InfoNCE temperatures."""

    phase: str
    w_sense: float
    w_context: float
    w_lm: float
    tau_sense: float
    tau_context: float


def cosine_interpolation(start: float, end: float, t: float) -> float:
    """`interp(a, b, t) = b + (a - b) (1 + cos(pi t)) / 2` (Appendix B): `start` at t = 0, `end` at t = 1."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * t))


@dataclass(frozen=True)
class PhaseSchedule:
    """Progress in [0, 1] -> phase, loss weights and temperatures (Appendix B); defaults of Appendix C.

    With `a` the end of the alignment phase and `z` the start of the polish phase:

    - align, p <= a: weights go from `align_weights` to `joint_weights` on t = p / a;
    - joint, a < p < z: from `joint_weights` to `polish_weights` on t = (p - a) / (z - a);
    - polish, p >= z: `polish_weights`.

    All interpolation is by cosine. Weight triples are `(w_sense, w_context, w_lm)`.

    Args:
        align_fraction (`float`, *optional*, defaults to 0.2): Share of the steps in the alignment phase.
        joint_fraction (`float`, *optional*, defaults to 0.3): Share of the steps in the joint phase.
        polish_fraction (`float`, *optional*, defaults to 0.5): Share of the steps in the polish phase.
        align_weights (`tuple[float, float, float]`, *optional*, defaults to `(0.54, 0.44, 0.02)`):
            Weights at the start of training.
        joint_weights (`tuple[float, float, float]`, *optional*, defaults to `(0.40, 0.40, 0.20)`):
            Weights at the boundary of the alignment and the joint phase.
        polish_weights (`tuple[float, float, float]`, *optional*, defaults to `(0.15, 0.15, 0.70)`):
            Weights of the polish phase.
        tau_sense (`float`, *optional*, defaults to 0.05): Temperature of the sense loss at the start.
        tau_sense_end (`float`, *optional*): Its final value; `None` keeps it constant (Appendix C).
        tau_context (`float`, *optional*, defaults to 0.07): Temperature of the context loss at the start.
        tau_context_end (`float`, *optional*): Its final value; `None` keeps it constant (Appendix C).
        tau_decay_end (`str`, *optional*, defaults to `"joint"`):
            The phase at whose end both temperatures have reached their final values: `"joint"` is Appendix B,
            `"align"` the published code.
        phases (`tuple[str, ...]`, *optional*, defaults to `("align", "joint", "polish")`):
            The phases that are run, in this order. Leaving one out is a phase ablation of Table 6: the fractions of
            the others are rescaled to sum to one, their weights stay as they are. Without align, training starts at
            `joint_weights`; without joint, the weights jump from `joint_weights` (where align ends) to
            `polish_weights`; without polish, training ends where the joint phase ends.
        normalise_weights (`bool`, *optional*, defaults to `False`):
            Divide the three weights by their sum at every step, as the published code does. The paper's triples sum
            to one; an ablation that sets one weight to zero and keeps the others (Appendix G.2) needs `False`.

    Raises:
        `ValueError`: for any field outside what is described above; the message names the field and the way out.
    """

    align_fraction: float = 0.2
    joint_fraction: float = 0.3
    polish_fraction: float = 0.5
    align_weights: tuple[float, float, float] = (0.54, 0.44, 0.02)
    joint_weights: tuple[float, float, float] = (0.40, 0.40, 0.20)
    polish_weights: tuple[float, float, float] = (0.15, 0.15, 0.70)
    tau_sense: float = 0.05
    tau_sense_end: float | None = None
    tau_context: float = 0.07
    tau_context_end: float | None = None
    tau_decay_end: str = "joint"
    phases: tuple[str, ...] = PHASES
    normalise_weights: bool = False

    @classmethod
    def of(cls, settings: Mapping) -> "PhaseSchedule":
        """The schedule that the settings of a run name, whatever else they hold: what `w_sense`, `w_context` and
        `w_lm` set stands in the place of the scheduled weights."""
        given = {one.name: settings[one.name] for one in fields(cls) if one.name in settings}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        constants = [settings.get(name) for name in ("w_sense", "w_context", "w_lm")]
        for name in ("align_weights", "joint_weights", "polish_weights"):
            scheduled = given.get(name, getattr(cls, name))
            if len(scheduled) == len(constants):  # what is no triple is refused below
                given[name] = tuple(w if one is None else one for w, one in zip(scheduled, constants, strict=True))
        return cls(**given)

    def __post_init__(self):
        self._check_phases()
        self._check_fractions()
        for name in ("align_weights", "joint_weights", "polish_weights"):
            _check_weights(name, getattr(self, name))
        for name in ("tau_sense", "tau_sense_end", "tau_context", "tau_context_end"):
            tau = getattr(self, name)
            if tau is not None and not (math.isfinite(tau) and tau > 0):
                raise ValueError(
                    f"`{name}` is {tau}, but a temperature must be a positive number; the paper uses 0.05 (sense) "
                    "and 0.07 (context)."
                )

    @property
    def boundaries(self) -> tuple[float, float]:
        """`(a, z)`: progress at which the alignment phase ends and at which the polish phase begins."""
        fractions = self._listed_fractions()
        total = sum(fractions.values())
        return fractions.get("align", 0.0) / total, 1.0 - fractions.get("polish", 0.0) / total

    def phase_at(self, progress: float) -> str:
        """The phase at `progress`: align up to and including a, polish from z on, joint between."""
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"`progress` is {progress}, but training progress lies in [0, 1]: pass step / max_steps.")
        align_end, polish_start = self.boundaries
        if "align" in self.phases and progress <= align_end:
            return "align"
        if "polish" in self.phases and (progress >= polish_start or "joint" not in self.phases):
            return "polish"
        return "joint"

    def at(self, progress: float) -> PhaseState:
        """Phase, weights and temperatures at `progress` in [0, 1]."""
        phase = self.phase_at(progress)
        align_end, polish_start = self.boundaries
        if phase == "align":
            weights = self._interpolate(self.align_weights, self.joint_weights, progress / align_end)
        elif phase == "joint":
            t = (progress - align_end) / (polish_start - align_end)
            weights = self._interpolate(self.joint_weights, self.polish_weights, t)
        else:
            weights = self.polish_weights
        if self.normalise_weights:
            weights = tuple(weight / sum(weights) for weight in weights)
        w_sense, w_context, w_lm = (float(weight) for weight in weights)
        return PhaseState(
            phase,
            w_sense,
            w_context,
            w_lm,
            self._temperature(self.tau_sense, self.tau_sense_end, progress),
            self._temperature(self.tau_context, self.tau_context_end, progress),
        )

    def _temperature(self, start: float, end: float | None, progress: float) -> float:
        align_end, polish_start = self.boundaries
        decay_end = {"align": align_end, "joint": polish_start, "polish": 1.0}[self.tau_decay_end]
        if end is None:
            return start
        return cosine_interpolation(start, end, progress / decay_end) if progress < decay_end else end

    @staticmethod
    def _interpolate(start, end, t: float) -> tuple[float, ...]:
        return tuple(cosine_interpolation(a, b, t) for a, b in zip(start, end, strict=True))

    def _listed_fractions(self) -> dict[str, float]:
        return {phase: getattr(self, f"{phase}_fraction") for phase in self.phases}

    def _check_phases(self):
        in_order = tuple(phase for phase in PHASES if phase in self.phases)
        if not self.phases or tuple(self.phases) != in_order:
            raise ValueError(
                f"`phases` is {self.phases!r}, but it must list one or more of {PHASES}, each once and in this order; "
                "leave a phase out to run the ablation without it."
            )
        if self.tau_decay_end not in PHASES:
            raise ValueError(
                f"`tau_decay_end` is {self.tau_decay_end!r}, but must be one of {PHASES}: the phase at whose end the "
                "temperatures reach their final values."
            )
        object.__setattr__(self, "phases", in_order)  # a list (from YAML) becomes the tuple the type says

    def _check_fractions(self):
        fractions = self._listed_fractions()
        for phase, fraction in fractions.items():
            if not (math.isfinite(fraction) and fraction > 0):
                raise ValueError(
                    f"`{phase}_fraction` is {fraction}, but a phase that is run needs a positive share of the steps; "
                    f"raise it, or leave {phase!r} out of `phases` to run without it."
                )
        total = sum(fractions.values())
        # Fractions of a shortened list are shares of what remains; the full list has to account for every step.
        if tuple(self.phases) == PHASES and abs(total - 1.0) > 1e-6:
            listed = ", ".join(f"{phase}_fraction={fraction}" for phase, fraction in fractions.items())
            raise ValueError(
                f"The phase fractions ({listed}) sum to {total:g}, but must sum to 1; the paper uses 0.2, 0.3 and 0.5."
            )


def _check_weights(name: str, weights) -> None:
    if len(weights) != 3 or not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(
            f"`{name}` is {weights!r}, but must be three numbers (w_sense, w_context, w_lm), none negative and not "
            "all zero; set a weight to 0 to switch its loss off."
        )
