"""Writers killed at random points, in short; `python -m benchmarks.chaos` does it at length."""

from pathlib import Path

from benchmarks.chaos import chaos


def test_nothing_is_lost_or_doubled_when_writers_are_killed(tmp_path: Path) -> None:
    outcome = chaos(str(tmp_path / "warehouse"), kills=12, grace=10, seed=1, pause=0.3)
    assert outcome.sound, outcome
    assert outcome.kills == 12 and outcome.queries > 0
