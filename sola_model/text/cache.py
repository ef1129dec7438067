"""Text features on disk, so that a text is encoded once. Axes: W text tokens, C text channels."""

import hashlib
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from sola_model.files import replacing
from sola_model.text.encoder import TextEncoder, text_encoder_identity

TEXTS_PER_FILE = 1024  # about 50 MB at C = 1024


class CachedTextEncoder:
    """A `TextEncoder` that keeps what it computes in a folder; it is loaded only for what is new.

    Features are found by the encoder's identity and the text. Files are written whole under new
    names and never changed, so any number of processes share a folder, and it may be deleted. A
    tensor's name has a checksum of its bytes: a damaged file is deleted and computed again.

    DIR/<encoder>/<name>.safetensors    float32 text_WC by name, <sha256 of the text>-<crc32>
                                        ("words" and a zero byte before it: with token ids)
    """

    def __init__(self, name_or_path: str, folder: str | Path, device: str = "cpu") -> None:
        self.name_or_path, self.device = name_or_path, device
        identity = text_encoder_identity(name_or_path)
        self.folder = Path(folder) / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._encoder: TextEncoder | None = None
        self._files: set[Path] = set()  # whose names are in `_places`
        self._places: dict[str, tuple[Path, str]] = {}  # hash of a text -> file, tensor's name

    def encode(self, texts: Sequence[str], *, words: bool = False) -> list[Tensor]:
        """As `TextEncoder.encode`; equal texts share a tensor, so do not write into it."""
        keys = _keys(texts, words)
        found = self._read(set(keys.values()))
        missing = [text for text, key in keys.items() if key not in found]
        for start in range(0, len(missing), TEXTS_PER_FILE):
            part = missing[start : start + TEXTS_PER_FILE]
            encoded = self._loaded().encode(part, words=words)
            features = dict(zip((keys[text] for text in part), encoded, strict=True))
            self._write(features)
            found |= features
        return [found[keys[text]] for text in texts]

    def faults(self, texts: Iterable[str], *, words: bool = False) -> dict[str, str]:
        """The texts that the encoder does not take, with why; those it has encoded are sound."""
        keys = _keys(texts, words)
        self._look_around()
        new = [text for text, key in keys.items() if key not in self._places]
        return {text: fault for text in new if (fault := self._loaded().fault(text))}

    def _loaded(self) -> TextEncoder:
        """The encoder, from when it is needed."""
        if self._encoder is None:
            self._encoder = TextEncoder(self.name_or_path, self.device)
        return self._encoder

    def _read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """The features that are there."""
        if not set(keys) <= self._places.keys():
            self._look_around()
        wanted = defaultdict(list)
        for key in keys:
            if key in self._places:
                path, name = self._places[key]
                wanted[path].append((key, name))
        found: dict[str, Tensor] = {}
        for path, places in wanted.items():
            try:
                with safetensors.safe_open(path, "pt") as file:
                    features = {key: file.get_tensor(name) for key, name in places}
                if any(name != _name(key, features[key]) for key, name in places):
                    raise safetensors.SafetensorError("a checksum differs")
            except (OSError, safetensors.SafetensorError):
                self._forget(path)
            else:
                found |= features
        return found

    def _look_around(self) -> None:
        """Take note of files that are new, from this process or another."""
        for path in set(self.folder.glob("*.safetensors")) - self._files:
            try:
                with safetensors.safe_open(path, "pt") as file:
                    names = file.keys()
                self._places |= {name.split("-")[0]: (path, name) for name in names}
                self._files.add(path)
            except (OSError, safetensors.SafetensorError):
                self._forget(path)

    def _forget(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._files.discard(path)
        self._places = {key: place for key, place in self._places.items() if place[0] != path}

    def _write(self, features: dict[str, Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {_name(key, text_WC): text_WC for key, text_WC in features.items()}
        with replacing(self.folder / f"{uuid.uuid4().hex}.safetensors") as file:
            file.write(safetensors.torch.save(tensors))


def _name(key: str, text_WC: Tensor) -> str:
    return f"{key}-{zlib.crc32(text_WC.contiguous().numpy().data):08x}"


def _keys(texts: Iterable[str], words: bool) -> dict[str, str]:
    """What each text's features are found by."""
    kind = "words\0" if words else ""
    return {text: hashlib.sha256((kind + text).encode()).hexdigest() for text in texts}
