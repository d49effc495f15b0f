"""The schedule: sound at every length of a run."""

import pytest

from vit.options import Options
from vit.schedule import Schedule


@pytest.mark.parametrize("epochs", [0.01, 0.5, 1, 30, 300])
@pytest.mark.parametrize("images", [128, 1000, 50_000])
def test_the_schedule_is_sound_at_every_length(epochs, images):
    options = Options(epochs=epochs, hold=0.3, warmup=1, sizes="24:0.5 32:0.8")
    schedule = Schedule(options, images)
    steps = range(schedule.total)
    rates = [schedule.lr(step) for step in (steps if schedule.total < 5000 else range(0, schedule.total, 97))]
    assert all(0 <= rate <= options.lr for rate in rates) and max(rates) > 0.5 * options.lr
    assert (
        schedule.snapshots() <= {*range(schedule.total + 1)} and {0, schedule.total} <= schedule.snapshots()
    )
    assert len(schedule.snapshots()) <= options.snapshots
    assert schedule.side(schedule.total - 1) in ((64,) if schedule.total > 5 else (24, 32, 64))


@pytest.mark.parametrize(
    ("image_size", "whole", "kept"),
    [(64, 64, [24, 64]), (64, 80, [30, 80]), (48, 32, [24, 32])],  # the last: smaller than they are shown
)
def test_pictures_are_kept_as_large_as_a_crop_of_them_needs(image_size, whole, kept):
    schedule = Schedule(Options(image_size=image_size, sizes="24:0.5"), 1000)
    assert [schedule.kept(step, whole) for step in (0, schedule.total - 1)] == kept


def test_the_learning_rate_warms_up_holds_and_falls():
    schedule = Schedule(Options(epochs=10, warmup=1, hold=0.5, lr=1.0, batch_size=10), 100)
    rates = [schedule.lr(step) for step in (0, 4, 9, 50, 75, 99)]
    assert rates == pytest.approx([0.1, 0.5, 1, 1, 0.5, 0.001], abs=1e-3)


def test_a_short_run_reaches_its_peak_within_its_first_quarter():
    schedule = Schedule(Options(epochs=1, warmup=50, hold=0.0, lr=1.0, batch_size=10), 1000)
    rates = [schedule.lr(step) for step in range(schedule.total)]
    assert len(rates) == 100 and max(rates) == rates[24] == 1
    assert rates[:25] == pytest.approx([(step + 1) / 25 for step in range(25)]) and rates[26] < 1


def test_the_last_steps_learn_from_whole_pictures():
    schedule = Schedule(Options(epochs=1, mix=1.0, batch_size=10), 1000)
    assert [step for step in range(schedule.total) if not schedule.mixes(step)] == [*range(85, 100)]
    assert not any(Schedule(Options(epochs=1, mask=0.5, batch_size=10), 1000).mixes(s) for s in range(100))


def test_a_curve_has_a_row_at_every_25th_and_at_every_snapshot():
    schedule = Schedule(Options(epochs=10, batch_size=10, snapshots=6), 1000)
    assert {*range(0, 1001, 40)} <= schedule.evaluations() and schedule.snapshots() <= schedule.evaluations()
    assert len(schedule.evaluations()) <= 26 + 6
