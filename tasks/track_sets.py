"""Track sets: all tracks of a video that were made in one way, under a name of their own.

Sets of the same video stand side by side. Of each split one is the default, which commands take
unless told another.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from sola_model.detection.names import detector_identity
from sola_model.extraction.checkpoints import checkpoint_identity
from sola_model.extraction.trackers import weights_identity
from sola_model.recipe_sections import BoxPrompts, DetectorSettings, Extraction
from sola_model.recipes import Recipe
from sola_model.settings import essential, from_dict
from tasks.worker import precision as own_precision
from warehouse import TABLES, Key, Warehouse, WarehouseError, fingerprint
from warehouse.commits import Making
from warehouse.corruptions import check_corruption
from warehouse.sources.base import check_path_name

GIVEN = "given"  # tracker of imported tracks, and what the names of their sets begin with


@dataclass(frozen=True, kw_only=True)
class BoxSource:
    """Where the boxes that prompt are from: a detector by name, or a file of boxes.

    identity: of the detector's weights, or of the file.
    """

    name: str
    identity: str
    settings: DetectorSettings = field(default_factory=DetectorSettings)


@dataclass(frozen=True, kw_only=True)
class GivenTracks:
    """Tracks of another method, which are imported.

    name: of the method, or of the file. identity: of the file's content. tokens: whether our SAM2
    made object tokens of them.
    """

    name: str
    identity: str
    tokens: bool


@dataclass(frozen=True, kw_only=True)
class TrackSet:
    """How the tracks of a video are made.

    tracker: one of `tasks.stages.precompute.TRACKERS`, or "given": the tracks were imported.
    checkpoint: its weights as they were named, of given tracks those that made the tokens.
    weights: their sha256, or their hub id, see `weights_identity`; None if not known (format 2:
        then `checkpoint` ends in what tells them from others, "@" and digits, and is no file).
    extraction: settings of prompts and tracks.
    precision: that it computes in; None if not known.
    corruption: of the frames, such as "gaussian_noise-3".
    boxes: what prompts beside the grid; None: nothing.
    masks: the name of a folder of a user's masks that prompt, too; None: none do.
    given: the tracks of another method that these are; None: they were made here.
    known_as: the name under which a warehouse has it; "": it follows from the rest.
    """

    tracker: str = "sam2"
    checkpoint: str
    weights: str | None
    extraction: Extraction
    precision: str | None
    corruption: str | None = None
    boxes: BoxSource | None = None
    masks: str | None = None
    given: GivenTracks | None = None
    known_as: str = ""

    @property
    def sources(self) -> str:
        """Where its prompt masks are from, such as grid+boxes."""
        if self.given:
            return "given"
        truth = self.extraction.ground_truth
        others = {"boxes": self.boxes, "own": self.masks, "masks": truth}
        return "+".join(["grid", *(name for name, there in others.items() if there)])

    @property
    def name(self) -> str:
        """A short name that no other set has: weights, sources and a hash of everything."""
        if self.known_as:
            return self.known_as
        of = Path(self.checkpoint).name.removesuffix(".pt")
        parts = [GIVEN, self.given.name] if self.given else [of, self.sources]
        parts += [self.corruption] if self.corruption else []
        return "-".join([*parts, fingerprint(set=essential(self.unnamed()))[:8]])

    @property
    def has_tokens(self) -> bool:
        """Whether its tracks have object tokens."""
        return self.given is None or self.given.tokens

    @property
    def tokens(self) -> dict[str, Any]:
        """What object tokens depend on: a selector is meant for those that it was trained on."""
        settings = replace(self.extraction, ground_truth=False, boxes=BoxPrompts())
        weights = self.weights or self.checkpoint
        return {"tracker": self.tracker, "weights": weights, "settings": essential(settings)}

    def unnamed(self) -> "TrackSet":
        """What its tracks depend on: not under which names weights and boxes were given."""
        boxes = self.boxes and replace(self.boxes, name="")
        given = self.given and replace(self.given, name="")
        checkpoint = "" if self.weights else self.checkpoint
        return replace(self, checkpoint=checkpoint, boxes=boxes, given=given, known_as="")

    def without_boxes(self) -> "TrackSet":
        """What the tracks of the grid (and of ground truth) depend on."""
        extraction = replace(self.extraction, boxes=BoxPrompts())
        return replace(self.unnamed(), extraction=extraction, boxes=None, masks=None)

    def as_known(self) -> dict[str, Any]:
        """All of it as JSON values; `TrackSet.of` of them has the same name, whatever is new."""
        return asdict(self) | {"known_as": self.name}

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> "TrackSet":
        """The set that `as_known` made these values of."""
        found: TrackSet = from_dict(known, cls)
        return found


def track_set_of(
    recipe: Recipe,
    *,
    precision: str | None = None,
    corruption: str | None = None,
    boxes: str | None = None,
    masks: str | None = None,
) -> TrackSet:
    """The set of tracks that a recipe makes.

    `precision`: of the workers, default that of this process. `boxes`: a file of boxes, instead of
    those of the recipe's detector. `masks`: a folder of a user's own masks.

    Raises:
        ValueError: there is no such checkpoint, corruption or file, or the tracker cannot take it.
    """
    check_corruption(corruption)
    found = None
    if boxes:
        content = Path(boxes).read_bytes()
        found = BoxSource(name=Path(boxes).name, identity=fingerprint(boxes=content.hex()))
    elif recipe.detector:
        found = BoxSource(
            name=recipe.detector,
            identity=detector_identity(recipe.detector),
            settings=recipe.detection,
        )
    return TrackSet(
        tracker=recipe.tracker,
        checkpoint=recipe.sam2,
        weights=weights_identity(recipe.tracker, recipe.sam2),
        extraction=recipe.extraction,
        precision=precision or own_precision(),
        corruption=corruption,
        boxes=found,
        masks=Path(masks).resolve().name if masks else None,
    )


def made_given(given: GivenTracks, sam2: Recipe | None = None) -> TrackSet:
    """The set of imported tracks; `sam2`: the recipe whose SAM2 makes their tokens.

    Raises:
        ValueError: there is no such checkpoint, or the name is not usable.
    """
    check_path_name(given.name, "the name of the tracks")
    return TrackSet(
        tracker=GIVEN,
        checkpoint=sam2.sam2 if sam2 else "",
        weights=checkpoint_identity(sam2.sam2) if sam2 else None,
        extraction=Extraction(),
        precision=own_precision() if sam2 else None,
        given=given,
    )


def check_tokens(track_set: TrackSet) -> TrackSet:
    """The set. Raises WarehouseError when its tracks have no object tokens."""
    if not track_set.has_tokens:
        raise WarehouseError(
            f"the tracks {track_set.name} were imported without tokens, which training, evaluation "
            "and search read. Import the file again without --no-tokens, or take other tracks with "
            "--tracks. `sola oracle`, `sola export --what all-tracks` and `sola score` need none."
        )
    return track_set


def remember(
    store: Warehouse, dataset: str, split: str, track_set: TrackSet, recipe: str | None = None
) -> None:
    """Publish what a set is, for a split, unless it is there. `recipe`: the name of its recipe."""
    key = Key(dataset=dataset, split=split, track_set=track_set.name)
    row = {
        "dataset": dataset,
        "split": split,
        "track_set": track_set.name,
        "tracker": track_set.tracker,
        "checkpoint": track_set.checkpoint,
        "weights": track_set.weights,
        "sources": track_set.sources,
        "precision": track_set.precision,
        "corruption": track_set.corruption,
        "settings": json.dumps(track_set.as_known()),
    }
    table = pa.Table.from_pylist([row], schema=TABLES["track_sets"])
    making = Making(settings={"recipe": recipe} if recipe else None)
    named = fingerprint(track_set=row)
    store.publish("track_set", key, named, {"track_sets": table}, making=making)


def make_default(store: Warehouse, dataset: str, split: str, name: str) -> None:
    """Let commands take a set of a split unless told another.

    Raises:
        WarehouseError: the split has no such set.
    """
    _named(store, dataset, split, name)
    row = {"dataset": dataset, "split": split, "track_set": name}
    table = pa.Table.from_pylist([row], schema=TABLES["default_tracks"])
    key = Key(dataset=dataset, split=split)
    store.publish("default_tracks", key, fingerprint(tracks=name), {"default_tracks": table})


def sets_of(store: Warehouse, dataset: str, split: str) -> dict[str, TrackSet]:
    """The track sets of a split by name, the default first."""
    commits = store.current("track_set", dataset=dataset, split=split)
    rows = store.read("track_sets", commits.values()).to_pylist()
    found = {row["track_set"]: TrackSet.of(json.loads(row["settings"])) for row in rows}
    key = Key(dataset=dataset, split=split)
    if current := store.current("default_tracks", [key]).get(key):
        default = store.read("default_tracks", [current])["track_set"][0].as_py()
        found = {default: found[default], **found} if default in found else found
    return found


def continued(store: Warehouse, dataset: str, split: str, track_set: TrackSet) -> TrackSet:
    """The set of a split that is this one but for its precision, which is not known; else this.

    Warehouses of format 2 do not know in which precision their tracks were made.
    """

    def identity(each: TrackSet) -> Any:
        used = each.unnamed() if each.boxes else each.without_boxes()
        boxes = used.boxes and replace(used.boxes, name="")
        return essential(replace(used, precision=None, boxes=boxes))

    for known in sets_of(store, dataset, split).values():
        if known.precision is None and known.weights and identity(known) == identity(track_set):
            return known
    return track_set


def tracks_for(
    store: Warehouse,
    dataset: str,
    split: str,
    named: str | None = None,
    like: Mapping[str, Any] | None = None,
) -> TrackSet:
    """The set of a split to take: the one that is named, else the default.

    With `like`, the `TrackSet.tokens` of others, it is one that was made alike.

    Raises:
        WarehouseError: the split has no such set, or none at all.
    """
    if named is not None:
        return _named(store, dataset, split, named)
    sets = sets_of(store, dataset, split)
    if not sets:
        raise WarehouseError(
            f"there are no tracks of {dataset}/{split} in {store.url}. Run `sola precompute "
            f"--dataset {dataset} --root DIR --split {split}` first."
        )
    alike = [each for each in sets.values() if like is None or each.tokens == like]
    if not alike:
        raise WarehouseError(
            f"no track set of {dataset}/{split} was made as those that the run was trained on: "
            f"{differences(like, next(iter(sets.values())).tokens)}. Make one with `sola "
            f"precompute --dataset {dataset} --root DIR --split {split}` and these settings, or "
            f"take other tracks all the same with --tracks: {', '.join(sets)}."
        )
    return alike[0]


def differences(one: Any, other: Any, path: str = "") -> str:
    """Where two nested settings differ, for messages."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = [name for name in one if one.get(name) != other.get(name)]
        parts = [differences(one[n], other.get(n), f"{path}{n}.") for n in names]
        return ", ".join(parts)
    short = [str(value)[:12] for value in (one, other)]
    return f"{path.removesuffix('.')} {short[0]}, not {short[1]}"


def _named(store: Warehouse, dataset: str, split: str, name: str) -> TrackSet:
    sets = sets_of(store, dataset, split)
    if name not in sets:
        raise WarehouseError(
            f"{dataset}/{split} has no track set {name!r}. It has: "
            f"{', '.join(sets) or 'none yet; run `sola precompute`'}."
        )
    return sets[name]


def made_as(track_set: TrackSet, recipe: Recipe) -> Recipe:
    """A recipe with the tracker, weights and settings of a track set."""
    return replace(
        recipe,
        tracker=track_set.tracker,
        sam2=track_set.checkpoint,
        extraction=track_set.extraction,
    )
