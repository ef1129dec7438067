"""Flows killed at random points, in short; `python -m benchmarks.chaos_flows` does it at length."""

from pathlib import Path

from benchmarks.chaos_flows import chaos


def test_nothing_is_lost_or_doubled_when_flows_are_killed(
    prefect_server: str, tmp_path: Path
) -> None:
    clips = {"train": 2, "valid_u": 1}
    outcome, _ = chaos(
        tmp_path, kills=6, pause=1, clips=clips, grace=30, seed=1, url=prefect_server
    )
    assert outcome.sound, outcome
    assert outcome.kills == 6 and outcome.queries > 0
