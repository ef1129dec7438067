"""Text on pictures, and the video they become."""

from fractions import Fraction

import av
import numpy as np
import pytest

from tasks.own_video.video_writer import evenly, h264_video
from tasks.pictures.captions import BACKGROUND, band, put, tag
from tasks.pictures.masks_on_frames import PALETTE
from warehouse import read_video
from warehouse.submissions import SubmissionError
from warehouse.video_files import video_timing

LONG = "the small striped triangle that starts left of the circle and then turns back towards it"


def shows(picture_HW3: np.ndarray, colour: np.ndarray) -> bool:
    return bool((picture_HW3 == colour).all(-1).any())


def test_the_band_is_as_wide_as_the_picture_and_as_high_as_its_sentences() -> None:
    one = band(640, 16, ["a bar"], [("87%", True)])
    two = band(640, 16, ["a bar", LONG], [("87%", True), ("not found", False)])
    assert one.shape[1] == two.shape[1] == 640
    assert len(two) == len(one) + 2 * 24  # the long one takes two rows
    assert shows(two, PALETTE[0]) and shows(two, PALETTE[1]) and not shows(one, PALETTE[1])
    assert (two[:, :4] == BACKGROUND).all() and (two[:, -4:] == BACKGROUND).all()
    never_more = band(640, 16, [LONG * 9], [("87%", True)])
    assert len(never_more) == len(one) + 24


def test_a_verdict_changes_the_picture_but_not_its_size() -> None:
    found, missed = (
        band(200, 13, ["a bar"], [verdict]) for verdict in (("87%", True), ("not found", False))
    )
    assert found.shape == missed.shape and (found != missed).any()


def test_a_tag_has_a_part_for_each_sentence() -> None:
    both = tag(16, [(0, 0.874), (2, 0.5)])
    assert shows(both, PALETTE[0]) and shows(both, PALETTE[2])
    assert both.shape[1] > tag(16, [(0, 0.874)]).shape[1]


@pytest.mark.parametrize(("x", "y"), [(-5, -5), (3, 2), (99, 99)])
def test_what_is_put_stays_inside(x: int, y: int) -> None:
    picture, small = np.zeros((10, 12, 3), np.uint8), np.full((4, 5, 3), 9, np.uint8)
    put(picture, small, x, y)
    assert (picture == 9).sum() == small.size
    put(picture, np.full((40, 50, 3), 7, np.uint8), x, y)
    assert (picture == 7).all()


def test_a_video_comes_back(tmp_path) -> None:
    pictures = [np.full((33, 48, 3), 20 * t, np.uint8) for t in range(10)]
    rate = Fraction(30000, 1001)
    with h264_video(tmp_path / "v.mp4", evenly(10, rate)) as write:
        for picture in pictures:
            write(picture)
        assert not (tmp_path / "v.mp4").exists()  # before it is complete
    back = list(read_video(tmp_path / "v.mp4"))
    assert len(back) == 10 and back[0].shape == (32, 48, 3)
    for before, after in zip(pictures, back, strict=True):
        assert np.abs(after.astype(int) - before[:32]).mean() < 6
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].average_rate == rate
        assert container.streams.video[0].codec_context.name == "h264"


def test_an_error_leaves_no_video(tmp_path) -> None:
    with pytest.raises(RuntimeError), h264_video(tmp_path / "v.mp4", [Fraction(0)]) as write:
        write(np.zeros((32, 48, 3), np.uint8))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(SubmissionError, match="cannot be written"),
        h264_video(tmp_path / "none" / "v.mp4", [Fraction(0)]),
    ):
        pass


def test_many_irregular_times_are_kept(tmp_path) -> None:
    """Their mean rate is no small fraction."""
    times = [Fraction(t * t + 7 * t, 99_991) for t in range(300)]
    with h264_video(tmp_path / "v.mp4", times) as write:
        for t in range(300):
            write(np.full((32, 48, 3), t % 200, np.uint8))
    back, _ = video_timing(tmp_path / "v.mp4")
    np.testing.assert_allclose([float(t) for t in back], [float(t) for t in times], atol=1e-5)
