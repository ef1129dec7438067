"""Scenes of the embedded data set: a few shapes, each with one motion, over a textured background.

A third of the scenes hold *twins*: two shapes of the same kind, colour, texture and size that
only their motion tells apart, as MeViS's look-alikes do. All positions and sizes are in pixels
of a 144 x 112 frame, times in frames, angles in radians; y grows downwards.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

WIDTH, HEIGHT = 144, 112
FRAMES = 24

KINDS = ("circle", "square", "triangle", "star", "bar")
COLOURS = {
    "red": (205, 50, 45),
    "green": (50, 165, 65),
    "blue": (50, 85, 205),
    "yellow": (225, 205, 50),
    "purple": (140, 60, 175),
    "orange": (235, 135, 35),
    "cyan": (60, 195, 205),
    "white": (235, 235, 230),
}
TEXTURES = ("plain", "striped", "spotted")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
MOTIONS = (
    "moves",
    "stands still",
    "stops",
    "starts",
    "turns back",
    "grows",
    "shrinks",
    "spins",
    "circles",
    "leaves and returns",
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One object of a scene: what it looks like and where it is in each frame.

    `centre_T2` (x, y), `scale_T` (1 = `radius`) and `angle_T` hold one entry per frame.
    `direction` is the first direction of travel, or None where the motion has none.
    `follows` is the index of the shape that this one follows.
    """

    kind: str
    colour: str
    texture: str
    radius: float
    motion: str
    direction: str | None
    speed: float
    centre_T2: np.ndarray
    scale_T: np.ndarray
    angle_T: np.ndarray
    follows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Shapes from the farthest to the nearest, and the seed of everything that is only texture."""

    shapes: tuple[Shape, ...]
    texture_seed: int
    frames: int


def random_scene(rng: np.random.Generator, frames: int = FRAMES) -> Scene:
    """A scene of 2 to 4 shapes; the same generator state gives the same scene."""
    count = int(rng.choice([2, 3, 4], p=[0.3, 0.5, 0.2]))
    looks = _distinct_looks(rng, count)
    has_twins = rng.random() < 0.4
    if has_twins:
        looks[1] = looks[0]
    shapes: list[Shape] = []
    for kind, colour, texture, radius in looks:
        twin = shapes[0] if has_twins and len(shapes) == 1 else None
        shapes.append(_place(rng, shapes, twin, kind, colour, texture, radius, frames))
    if not has_twins and count < 4 and rng.random() < 0.25:
        shapes = _make_followed(rng, shapes, frames)
    return Scene(shapes=tuple(shapes), texture_seed=int(rng.integers(2**31)), frames=frames)


def _distinct_looks(rng: np.random.Generator, count: int) -> list[tuple[str, str, str, float]]:
    colours = rng.permutation(list(COLOURS))[:count]
    kinds = rng.choice(KINDS, size=count)
    return [
        (str(kind), str(colour), str(rng.choice(TEXTURES)), float(rng.uniform(15.0, 22.0)))
        for kind, colour in zip(kinds, colours, strict=True)
    ]


def _place(
    rng: np.random.Generator,
    others: list[Shape],
    twin: Shape | None,
    kind: str,
    colour: str,
    texture: str,
    radius: float,
    frames: int,
) -> Shape:
    """The least overlapping of a few random motions, so that occlusion stays partial."""
    candidates: list[tuple[float, int, Shape]] = []
    while len(candidates) < 12:
        shape = _move(rng, kind, colour, texture, radius, frames)
        if twin is not None and (twin.motion, twin.direction) == (shape.motion, shape.direction):
            continue
        crowding = sum(overlap(shape, other) for other in others)
        candidates.append((crowding, len(candidates), shape))
    return min(candidates)[2]


def overlap(a: Shape, b: Shape) -> float:
    """The frames of overlap of two shapes, a frame of complete overlap as 1."""
    gap_T = np.linalg.norm(a.centre_T2 - b.centre_T2, axis=1)
    reach_T = a.radius * a.scale_T + b.radius * b.scale_T
    return float(np.clip(1.0 - gap_T / reach_T, 0.0, None).sum())


def _move(
    rng: np.random.Generator, kind: str, colour: str, texture: str, radius: float, frames: int
) -> Shape:
    motion = str(rng.choice(MOTIONS, p=_motion_weights(kind)))
    direction = str(rng.choice(list(DIRECTIONS)))
    horizontal = direction in ("left", "right")
    room = (WIDTH if horizontal else HEIGHT) - 2.2 * radius
    time_T = np.arange(frames, dtype=np.float64)
    scale_T = np.ones(frames)
    angle_T = np.full(frames, rng.uniform(0, 2 * np.pi)) + rng.uniform(-0.02, 0.02) * time_T
    travel_T = np.zeros(frames)  # pixels along `direction`
    offset_T2 = np.zeros((frames, 2))
    last = frames - 1
    turn = last * rng.uniform(0.4, 0.6)
    if motion == "moves":
        speed = min(rng.uniform(1.2, 3.0), room / last)
        travel_T = speed * time_T
    elif motion == "stops":
        speed = min(rng.uniform(2.0, 3.2), room / turn)
        travel_T = speed * np.minimum(time_T, turn)
    elif motion == "starts":
        speed = min(rng.uniform(2.0, 3.2), room / (last - turn))
        travel_T = speed * np.maximum(time_T - turn, 0.0)
    elif motion == "turns back":
        speed = min(rng.uniform(2.2, 3.4), room / turn)
        travel_T = speed * (turn - np.abs(time_T - turn))
    elif motion == "leaves and returns":
        # Starts near the edge it leaves through; out of sight for about a fifth of the clip.
        depth = rng.uniform(1.1, 1.5) * radius
        distance = depth + 2.6 * radius
        speed = distance / turn
        travel_T = speed * (turn - np.abs(time_T - turn))
    elif motion == "circles":
        orbit = rng.uniform(12.0, min(24.0, 0.5 * (HEIGHT - 2.2 * radius)))
        phase_T = rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * 2 * np.pi * time_T / (
            frames * rng.uniform(0.75, 0.95)
        )
        offset_T2 = orbit * np.stack([np.cos(phase_T), np.sin(phase_T)], axis=1)
        speed = orbit * 2 * np.pi / frames
    else:
        speed = 0.0
        if motion == "grows":
            scale_T = np.linspace(0.65, 1.35, frames)
        elif motion == "shrinks":
            scale_T = np.linspace(1.35, 0.65, frames)
        elif motion == "spins":
            angle_T += rng.choice([-1, 1]) * rng.uniform(0.2, 0.35) * time_T
    path_T2 = offset_T2 + travel_T[:, None] * np.array(DIRECTIONS[direction])
    return Shape(
        kind=kind,
        colour=colour,
        texture=texture,
        radius=radius,
        motion=motion,
        direction=direction if travel_T.any() else None,
        speed=float(speed),
        centre_T2=path_T2 + _start(rng, motion, direction, path_T2, radius * scale_T.max()),
        scale_T=scale_T,
        angle_T=angle_T,
    )


def _motion_weights(kind: str) -> np.ndarray:
    """Steady motion is twice as frequent as any other; a spinning circle cannot be seen."""
    weights = np.ones(len(MOTIONS))
    weights[MOTIONS.index("moves")] = 2.5
    if kind == "circle":
        weights[MOTIONS.index("spins")] = 0.0
    return weights / weights.sum()


def _start(
    rng: np.random.Generator, motion: str, direction: str, path_T2: np.ndarray, reach: float
) -> np.ndarray:
    """An offset that keeps the whole path in the frame (or its ends, if it leaves and returns)."""
    size = np.array([WIDTH, HEIGHT], dtype=np.float64)
    low = reach - path_T2.min(axis=0)
    high = size - reach - path_T2.max(axis=0)
    start = np.where(
        high > low, rng.uniform(np.minimum(low, high), np.maximum(low, high)), size / 2
    )
    if motion == "leaves and returns":
        axis = 0 if direction in ("left", "right") else 1
        if direction in ("left", "up"):
            start[axis] = -1.3 * reach - path_T2[:, axis].min()
        else:
            start[axis] = size[axis] + 1.3 * reach - path_T2[:, axis].max()
    return start


def _make_followed(rng: np.random.Generator, shapes: list[Shape], frames: int) -> list[Shape]:
    """Let shape 1 follow shape 0 along a straight path, at a constant distance."""
    direction = str(rng.choice(["left", "right"]))
    heading = np.array(DIRECTIONS[direction])
    speed = float(rng.uniform(1.3, 1.8))
    leader, follower = (replace(s, radius=min(s.radius, 15.0)) for s in shapes[:2])
    gap = 1.15 * (leader.radius + follower.radius)
    travel_T2 = speed * np.arange(frames)[:, None] * heading
    path_T2 = np.concatenate([travel_T2, travel_T2 - gap * heading])
    start = _start(rng, "moves", direction, path_T2, 16.0)
    still = dict(scale_T=np.ones(frames), angle_T=np.zeros(frames))
    common: dict[str, Any] = dict(motion="moves", direction=direction, speed=speed, **still)
    leader = replace(leader, centre_T2=travel_T2 + start, **common)
    follower = replace(follower, centre_T2=travel_T2 - gap * heading + start, follows=0, **common)
    return [leader, follower, *shapes[2:]]
