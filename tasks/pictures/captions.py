"""Text on pictures: a band of sentences with their scores, and small tags on objects.

Axes: H and W in pixels, RGB uint8.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.pictures.masks_on_frames import PALETTE

BACKGROUND, TEXT, FAINT = (20, 20, 22), (240, 240, 240), (150, 150, 155)
LINES = 2  # of a sentence at most; the rest is cut


def font_size(height: int) -> int:
    """Legible on a picture of this height, in pixels."""
    return max(13, round(height / 30))


def band(
    width: int, size: int, sentences: Sequence[str], verdicts: Sequence[tuple[str, bool]]
) -> np.ndarray:
    """A picture (H, `width`) of sentences, each in a row with its colour and its verdict.

    `verdicts` are a short text for each sentence and whether it found something. The height
    depends on the sentences alone.
    """
    font = ImageFont.load_default(size)
    row, margin = round(1.5 * size), round(0.6 * size)
    room = round(font.getlength("64 tracks, best 100%"))
    start = margin + 2 * size
    wrapped = [_wrapped(text, font, width - start - room - 2 * margin) for text in sentences]
    height = row * sum(map(len, wrapped)) + 2 * margin
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    y = margin
    for number, (lines, (verdict, found)) in enumerate(zip(wrapped, verdicts, strict=True)):
        middle = y + row / 2
        swatch = (margin, middle - 0.45 * size, margin + 1.3 * size, middle + 0.45 * size)
        draw.rounded_rectangle(swatch, 0.2 * size, fill=_colour(number))
        draw.text((width - margin, middle), verdict, TEXT if found else FAINT, font, anchor="rm")
        for line in lines:
            draw.text((start, y + row / 2), line, TEXT if found else FAINT, font, anchor="lm")
            y += row
    return np.asarray(image)


def tag(size: int, scores: Sequence[tuple[int, float]]) -> np.ndarray:
    """A small label: per (number of the sentence, score in 0..1) a percentage on its colour."""
    font = ImageFont.load_default(size)
    texts = [(number, f"{100 * score:.0f}%") for number, score in scores]
    widths = [round(font.getlength(text) + 0.7 * size) for _, text in texts]
    image = Image.new("RGB", (sum(widths), round(1.3 * size)))
    draw = ImageDraw.Draw(image)
    x = 0
    for (number, text), width in zip(texts, widths, strict=True):
        colour = _colour(number)
        draw.rectangle((x, 0, x + width, image.height), fill=colour)
        ink = (0, 0, 0) if sum(colour) > 330 else (255, 255, 255)
        draw.text((x + width / 2, image.height / 2), text, ink, font, anchor="mm")
        x += width
    return np.asarray(image)


def put(picture_HW3: np.ndarray, small_HW3: np.ndarray, x: int, y: int) -> None:
    """Write the small picture into the large one, its corner at (x, y), moved to lie inside."""
    height, width = (min(s) for s in zip(small_HW3.shape[:2], picture_HW3.shape[:2], strict=True))
    y = min(max(y, 0), picture_HW3.shape[0] - height)
    x = min(max(x, 0), picture_HW3.shape[1] - width)
    picture_HW3[y : y + height, x : x + width] = small_HW3[:height, :width]


def _colour(number: int) -> tuple[int, ...]:
    return tuple(PALETTE[number % len(PALETTE)].tolist())


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> list[str]:
    """The text in lines of at most this width, at least one and at most `LINES`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], " ".join(lines[LINES - 1 :])]
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line.rstrip()}..."
