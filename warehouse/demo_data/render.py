"""Draw a scene: RGB frames and, per shape, the mask of what can be seen of it."""

import cv2
import numpy as np

from warehouse.demo_data.scene import COLOURS, HEIGHT, WIDTH, Scene, Shape

SUBPIXEL_BITS = 4


def render_frames(
    scene: Scene, frame_indices: range | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Render some frames of a scene, all by default.

    Returns:
        frames_THW3: uint8 RGB.
        masks_NTHW: bool, the visible part of each shape (nearer shapes hide farther ones).
    """
    indices = frame_indices if frame_indices is not None else range(scene.frames)
    rng = np.random.default_rng(scene.texture_seed)
    background = random_background(rng)
    colours = [np.array(COLOURS[shape.colour]) * rng.uniform(0.92, 1.08) for shape in scene.shapes]
    if len(scene.shapes) > 1 and _same_look(scene.shapes[0], scene.shapes[1]):
        colours[1] = colours[0]
    frames_THW3 = np.empty((len(indices), HEIGHT, WIDTH, 3), np.uint8)
    masks_NTHW = np.zeros((len(scene.shapes), len(indices), HEIGHT, WIDTH), bool)
    for row, time in enumerate(indices):
        canvas = background.copy()
        for n, shape in enumerate(scene.shapes):
            alpha_HW = _alpha(shape, time)
            inside = alpha_HW > 127
            masks_NTHW[:n, row] &= ~inside
            masks_NTHW[n, row] = inside
            _paint(canvas, alpha_HW, colours[n], shape, time)
        # Sensor noise differs from frame to frame but not with the frames that were asked for.
        noise = np.random.default_rng((scene.texture_seed, time)).normal(0, 3.0, canvas.shape)
        frames_THW3[row] = np.clip(canvas + noise, 0, 255)
    return frames_THW3, masks_NTHW


def _same_look(a: Shape, b: Shape) -> bool:
    return (a.kind, a.colour, a.texture) == (b.kind, b.colour, b.texture)


def random_background(rng: np.random.Generator) -> np.ndarray:
    """Low-contrast clutter: smooth blotches, faint lines and faint blobs around a grey tone."""
    tone = rng.uniform(70, 140, 3) * 0.3 + rng.uniform(80, 130) * 0.7
    coarse = rng.normal(0, 9, (8, 10, 3)).astype(np.float32)
    fine = rng.normal(0, 5, (28, 36, 3)).astype(np.float32)
    canvas = tone + sum(
        cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for noise in (coarse, fine)
    )
    overlay = canvas.astype(np.float32)
    for _ in range(int(rng.integers(3, 8))):
        ends = rng.integers(0, (WIDTH, HEIGHT), (2, 2))
        shade = (tone + rng.normal(0, 22)).tolist()
        cv2.line(overlay, ends[0].tolist(), ends[1].tolist(), shade, int(rng.integers(1, 3)))
    for _ in range(int(rng.integers(2, 5))):
        at = rng.integers(0, (WIDTH, HEIGHT)).tolist()
        shade = (tone + rng.normal(0, 18)).tolist()
        cv2.circle(overlay, at, int(rng.integers(3, 8)), shade, -1)
    return 0.5 * canvas + 0.5 * overlay


def outline(kind: str) -> np.ndarray:
    """Corners (K, 2), x and y, of a kind of shape at radius 1."""
    if kind == "star":
        angles = np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, 1.15, 0.65)
        return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if kind == "square":
        return 0.85 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    if kind == "bar":
        return np.array([[-1.15, -0.52], [1.15, -0.52], [1.15, 0.52], [-1.15, 0.52]])
    corners = 48 if kind == "circle" else 3
    angles = np.arange(corners) * 2 * np.pi / corners
    size = 0.95 if kind == "circle" else 1.2
    return size * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _alpha(shape: Shape, time: int) -> np.ndarray:
    """Coverage of a shape, uint8 (H, W), with anti-aliased edges."""
    cos, sin = np.cos(shape.angle_T[time]), np.sin(shape.angle_T[time])
    rotation = np.array([[cos, sin], [-sin, cos]])
    corners = outline(shape.kind) @ rotation * (shape.radius * shape.scale_T[time])
    points = np.round((corners + shape.centre_T2[time]) * 2**SUBPIXEL_BITS).astype(np.int32)
    alpha_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(alpha_HW, [points], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return alpha_HW


def _paint(
    canvas: np.ndarray, alpha_HW: np.ndarray, colour: np.ndarray, shape: Shape, time: int
) -> None:
    ys, xs = np.nonzero(alpha_HW.any(1))[0], np.nonzero(alpha_HW.any(0))[0]
    if not len(ys):
        return
    window = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    y, x = np.mgrid[window]
    cos, sin = np.cos(shape.angle_T[time]), np.sin(shape.angle_T[time])
    scale = shape.radius * shape.scale_T[time]
    dx, dy = x - shape.centre_T2[time, 0], y - shape.centre_T2[time, 1]
    u, v = (cos * dx + sin * dy) / scale, (cos * dy - sin * dx) / scale
    shade = np.ones_like(u)
    if shape.texture == "striped":
        shade += 0.13 * np.sign(np.sin(9 * u))
    elif shape.texture == "spotted":
        shade += 0.16 * np.sign(np.sin(7 * u) * np.sin(7 * v) - 0.3)
    alpha = alpha_HW[window][..., None] / 255.0
    canvas[window] = (1 - alpha) * canvas[window] + alpha * shade[..., None] * colour
