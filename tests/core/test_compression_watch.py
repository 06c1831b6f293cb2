"""What is noticed of a compression that runs."""

from datetime import UTC, datetime, timedelta

from app.core.compression_watch import compression_over_reason, feel_layers, layers_hang_reason
from app.core.job_specs import CompressionProgress

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def told(layer: int, s_per_layer: float | None = 60.0) -> CompressionProgress:
    return CompressionProgress(layer=layer, layers=30, phase="quantizing", s_per_layer=s_per_layer)


def test_a_layer_that_takes_ten_times_as_long_may_hang() -> None:
    pulse = feel_layers(None, told(3), 100.0)
    assert feel_layers(pulse, told(3), 500.0) == pulse
    assert layers_hang_reason(pulse, told(3), 700.0) == ""
    assert "more than 600 s" in layers_hang_reason(pulse, told(3), 701.0)
    assert feel_layers(pulse, told(4), 701.0).since_s == 701.0


def test_the_first_layer_and_what_comes_after_the_last_have_their_time() -> None:
    first = feel_layers(None, told(0, None), 0.0)
    assert layers_hang_reason(first, told(0, None), 3600.0) == ""
    assert layers_hang_reason(first, told(0, None), 3601.0).startswith("it may hang")
    last = feel_layers(None, told(30), 0.0)
    assert layers_hang_reason(last, told(30), 1e6) == ""


def test_its_time_is_over() -> None:
    assert compression_over_reason(None, NOW, NOW + timedelta(days=9)) == ""
    assert compression_over_reason(60, None, NOW) == ""
    assert compression_over_reason(60, NOW, NOW + timedelta(seconds=59)) == ""
    assert compression_over_reason(60, NOW, NOW + timedelta(seconds=60)) == "it has run for 60 s, as auto_stop_s says"
