import dataclasses

import pytest

from sensia_trainer.schedule import PhaseSchedule, PhaseState
from tests.reference import schedule as reference


def weights(state):
    return state.w_sense, state.w_context, state.w_lm


def test_defaults_are_those_of_appendix_c():
    schedule = PhaseSchedule()
    assert schedule.boundaries == (0.2, 0.5)
    start, middle = schedule.at(0.0), schedule.at(0.2)
    assert (start.phase, middle.phase) == ("align", "align")
    assert start[1:] == pytest.approx((0.54, 0.44, 0.02, 0.05, 0.07), abs=1e-15)
    assert middle[1:] == pytest.approx((0.40, 0.40, 0.20, 0.05, 0.07), abs=1e-15)
    assert schedule.at(0.5) == PhaseState("polish", 0.15, 0.15, 0.70, 0.05, 0.07)
    assert schedule.at(1.0) == PhaseState("polish", 0.15, 0.15, 0.70, 0.05, 0.07)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, (0.5392, 0.4412, 0.0196)),
        (30_000, (0.4, 0.4, 0.2)),
        (52_500, (0.275, 0.275, 0.45)),
        (75_000, (0.15, 0.15, 0.70)),
        (149_999, (0.15, 0.15, 0.70)),
    ],
)
def test_weights_of_the_published_code(step, expected):
    schedule = PhaseSchedule(align_weights=(0.55, 0.45, 0.02), normalise_weights=True)
    assert weights(schedule.at(step / 150_000)) == pytest.approx(expected, abs=5e-5)


def test_literal_values_inside_the_phases():
    # cos(pi / 4) = 0.70710678: a quarter of the way is 14.6 % of the distance.
    schedule = PhaseSchedule()
    assert weights(schedule.at(0.05)) == pytest.approx((0.5194974746830583, 0.43414213562373093, 0.0463603896932107))
    assert weights(schedule.at(0.1)) == pytest.approx((0.47, 0.42, 0.11))
    assert weights(schedule.at(0.35)) == pytest.approx((0.275, 0.275, 0.45))


@pytest.mark.parametrize("fractions", [(0.2, 0.3, 0.5), (0.2, 0.5, 0.3), (0.6, 0.1, 0.3)])
def test_equals_appendix_b_written_out(fractions):
    a, z = fractions[0], 1 - fractions[2]
    schedule = PhaseSchedule(*fractions)
    for i in range(101):
        expected = reference.weights_at(i / 100, a, z, (0.54, 0.44, 0.02), (0.4, 0.4, 0.2), (0.15, 0.15, 0.7))
        assert weights(schedule.at(i / 100)) == pytest.approx(expected, abs=1e-12)


def test_weights_sum_to_one_and_have_no_jump_at_the_boundaries():
    schedule = PhaseSchedule()
    for boundary in schedule.boundaries:
        before, after = schedule.at(boundary - 1e-7), schedule.at(boundary + 1e-7)
        assert before.phase != after.phase
        assert weights(before) == pytest.approx(weights(after), abs=1e-9)
    assert all(sum(weights(schedule.at(i / 50))) == pytest.approx(1.0) for i in range(51))


def test_temperatures_decay_over_align_and_joint_or_over_align_alone():
    decaying = {"tau_sense": 0.05, "tau_sense_end": 0.03, "tau_context": 0.07, "tau_context_end": 0.04}
    paper = PhaseSchedule(**decaying)
    assert (paper.at(0.0).tau_sense, paper.at(0.0).tau_context) == (0.05, 0.07)
    assert paper.at(0.25).tau_sense == pytest.approx(0.04)
    assert paper.at(0.25).tau_context == pytest.approx(0.055)
    assert (paper.at(0.5).tau_sense, paper.at(1.0).tau_context) == (0.03, 0.04)
    published = PhaseSchedule(**decaying, tau_decay_end="align")
    assert published.at(0.1).tau_sense == pytest.approx(0.04)
    assert (published.at(0.2).tau_sense, published.at(0.35).tau_context) == (0.03, 0.04)


def test_without_align_training_starts_at_the_joint_weights():
    schedule = PhaseSchedule(phases=("joint", "polish"))
    assert schedule.boundaries == pytest.approx((0.0, 0.375))
    assert schedule.at(0.0) == PhaseState("joint", 0.4, 0.4, 0.2, 0.05, 0.07)
    assert weights(schedule.at(0.1875)) == pytest.approx((0.275, 0.275, 0.45))
    assert schedule.at(0.376).phase == "polish"


def test_without_joint_the_weights_jump_to_polish():
    schedule = PhaseSchedule(phases=("align", "polish"))
    boundary = 2 / 7
    assert schedule.boundaries == pytest.approx((boundary, boundary))
    before, after = schedule.at(boundary - 1e-9), schedule.at(boundary + 1e-9)
    assert (before.phase, after.phase) == ("align", "polish")
    assert weights(before) == pytest.approx((0.4, 0.4, 0.2))
    assert weights(after) == (0.15, 0.15, 0.70)
    assert {schedule.phase_at(i / 70) for i in range(71)} == {"align", "polish"}


def test_without_polish_training_ends_where_joint_ends():
    schedule = PhaseSchedule(phases=("align", "joint"))
    assert schedule.boundaries == pytest.approx((0.4, 1.0))
    assert schedule.at(1.0).phase == "joint"
    assert weights(schedule.at(1.0)) == pytest.approx((0.15, 0.15, 0.70))


@pytest.mark.parametrize("phase", ["align", "joint", "polish"])
def test_one_phase_alone(phase):
    schedule = PhaseSchedule(phases=(phase,))
    assert {schedule.at(i / 10).phase for i in range(11)} == {phase}


def test_phases_from_a_list_and_immutable():
    schedule = PhaseSchedule(phases=["joint", "polish"])
    assert schedule == PhaseSchedule(phases=("joint", "polish"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.tau_sense = 1.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"align_fraction": 0.5, "joint_fraction": 0.0}, ["joint_fraction", "0.0", "phases"]),
        ({"align_fraction": 0.7, "joint_fraction": -0.2}, ["joint_fraction", "-0.2"]),
        ({"align_fraction": float("nan")}, ["align_fraction", "nan"]),
        ({"polish_fraction": 0.6}, ["polish_fraction=0.6", "1.1", "must sum to 1"]),
        ({"phases": ("align", "finetune")}, ["phases", "finetune", "polish"]),
        ({"phases": ("polish", "align")}, ["phases", "order"]),
        ({"phases": ()}, ["phases", "()"]),
        ({"joint_weights": (0.4, -0.1, 0.7)}, ["joint_weights", "-0.1", "negative"]),
        ({"align_weights": (0.4, 0.6)}, ["align_weights", "three numbers"]),
        ({"polish_weights": (0, 0, 0)}, ["polish_weights", "zero"]),
        ({"tau_sense": 0.0}, ["tau_sense", "0.0", "positive"]),
        ({"tau_context_end": -0.07}, ["tau_context_end", "-0.07"]),
        ({"tau_decay_end": "never"}, ["tau_decay_end", "never", "joint"]),
    ],
)
def test_errors_name_the_field_and_the_value(fields, words):
    with pytest.raises(ValueError) as error:
        PhaseSchedule(**fields)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_outside_training_is_refused(progress):
    with pytest.raises(ValueError, match="progress"):
        PhaseSchedule().at(progress)
