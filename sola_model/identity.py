"""What names a model in a folder, without loading it."""

import hashlib
from pathlib import Path


def folder_identity(folder: Path) -> str:
    """sha256 over the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(path.relative_to(folder).as_posix().encode() + content)
    return digest.hexdigest()
