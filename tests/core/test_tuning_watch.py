"""What is noticed of a training, by a clock of numbers."""

from app.core.curves import MOST_POINTS, Curve, Point
from app.core.job_specs import JobProgress, TrainingProgress
from app.core.tuning_watch import auto_stop_reason, feel, hang_reason


def told(iteration: int, s_per_iteration: float | None = 2.0, **fields: float) -> TrainingProgress:
    return TrainingProgress(iteration=iteration, iterations=100, s_per_iteration=s_per_iteration, **fields)


def test_a_hang_is_ten_times_the_usual_and_five_minutes() -> None:
    pulse = feel(None, told(1), 0.0)
    assert hang_reason(pulse, told(1), 300.0) == ""
    assert hang_reason(pulse, told(1), 301.0) == "it may hang: no iteration for more than 300 s; one usually takes 2 s"
    assert hang_reason(pulse, told(1, 60.0), 600.0) == ""
    assert "600 s" in hang_reason(pulse, told(1, 60.0), 601.0)


def test_each_iteration_is_a_new_beginning() -> None:
    pulse = feel(None, told(1), 0.0)
    assert feel(pulse, told(1), 200.0) is pulse
    assert hang_reason(feel(pulse, told(2), 299.0), told(2), 500.0) == ""


def test_auto_stop_counts_iterating_alone() -> None:
    assert auto_stop_reason(3600, None) == ""
    assert auto_stop_reason(3600, told(1, iterated_s=3599.9)) == ""
    assert auto_stop_reason(3600, told(1, iterated_s=3600.0)) == "it has trained for 3600 s, as auto_stop_s says"
    assert auto_stop_reason(None, told(1, iterated_s=1e9)) == ""


def test_progress_and_the_time_left() -> None:
    assert (told(25).fraction, told(25).eta_s, told(25, None).eta_s) == (0.25, 150.0, None)
    assert JobProgress(training=told(25), done_bytes=9, total_bytes=10).fraction == 0.25
    assert TrainingProgress(iteration=0, iterations=0).fraction == 1.0


def test_figures_that_are_no_numbers_are_left_out() -> None:
    assert told(1, loss=float("nan")).metrics.keys() == {"iteration", "iterations", "s_per_iteration", "iterated_s"}


def test_a_curve_stays_small_and_even() -> None:
    curve = Curve()
    for iteration in range(1, 10_001):
        looked = 1.0 if iteration % 501 == 0 else None
        curve = curve.add(Point(iteration=iteration, loss=1.0, learning_rate=1e-5, validation_loss=looked))
    assert len(curve.points) <= MOST_POINTS
    assert curve.every == 8
    assert {point.iteration for point in curve.points if point.validation_loss} == set(range(501, 10_001, 501))
    assert curve.points[-1].iteration == 10_000
    assert [point.iteration for point in curve.until(20).points] == [8, 16]
