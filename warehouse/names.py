"""The names that this package gives to files in a warehouse. What has another is never deleted."""

import re
import zlib

from warehouse.commits import STAGES, parse_record
from warehouse.schemas import TABLES

RECORDS = "records"  # the folder of commit records; format 2 had "commits"
FOLDERS = ("data", RECORDS, "selectors", "checkpoints", "cache")

SAFE = "[A-Za-z0-9_-]"
UUID = "[0-9a-f]{32}"
DATA = re.compile(
    rf"data/([^/]+)(?:/{SAFE}{{1,30}}){{0,2}}/{SAFE}*{UUID}(?:-([0-9a-f]{{8}}))?\.parquet"
)
PACK = re.compile(rf"{RECORDS}/[^/]+/packs/{UUID}(?:-([0-9a-f]{{32}}))?\.parquet")
RECORD = re.compile(rf"{RECORDS}/[^/]+/[0-9a-f]{{2}}/([^/]+)")
WEIGHTS = re.compile(rf"selectors/([^/]+)/({UUID}/)?((last|best)/)?selector\.(json|safetensors)")
WEIGHTS_FOLDER = re.compile(rf"(selectors/[^/]+)/{UUID}/")
TEMPORARY = re.compile(rf"\.{UUID}\.tmp")
# Training sets, checkpoints and text features are written by other packages, in these folders.
TEMPORARY_WORK = re.compile(rf"(checkpoints|cache)/(.+/)?\.[^/]+\.(\d+|{UUID})\.tmp(/.+)?")


def is_data(path: str) -> bool:
    """Whether this version may have written a data file of this name."""
    match = DATA.fullmatch(path)
    return match is not None and match[1] in TABLES


def is_record(path: str) -> bool:
    """Whether it is the name of a commit record, in a file of its own, or of a pack."""
    if path.split("/")[1] not in STAGES:
        return False
    match = RECORD.fullmatch(path)
    own = match is not None and parse_record(match[1], path) is not None
    return own or PACK.fullmatch(path) is not None


def is_pack(path: str) -> bool:
    """Whether a file among the commits holds many records, whatever version named it."""
    return path.endswith(".parquet") and path.split("/")[-2] == "packs"


def is_weights(path: str) -> bool:
    """Whether it is the name of a file that a selector is stored in."""
    return WEIGHTS.fullmatch(path) is not None


def put_at(path: str) -> str:
    """The path that weights were put at, without the folder of their own that some lie in."""
    match = WEIGHTS_FOLDER.match(path)
    return f"{match[1]}/{path[match.end() :]}" if match else path


def is_temporary(path: str) -> bool:
    """Whether a file, or its folder, is one being written, or left by a kill while it was."""
    folder, _, name = path.rpartition("/")
    if TEMPORARY.fullmatch(name) and folder.partition("/")[0] in ("", *FOLDERS):
        return True
    return TEMPORARY_WORK.fullmatch(path) is not None


def is_inside(path: str) -> bool:
    """Whether a path that a record names stays below the root, in the folders of a warehouse."""
    parts = path.split("/")
    return parts[0] in FOLDERS and len(parts) > 1 and not {"", ".", ".."}.intersection(parts)


def crc_of(content: bytes) -> str:
    """The CRC-32 of a data file's content, as its name has it."""
    return f"{zlib.crc32(content):08x}"


def crc_in(path: str) -> str:
    """The CRC-32 in a data file's name; "" for a file of an earlier version, which has none."""
    match = DATA.fullmatch(path)
    return (match and match[2]) or ""


def digest_in(path: str) -> str:
    """The first digits of a pack's sha256, from its name; "" for one of an earlier version."""
    match = PACK.fullmatch(path)
    return (match and match[1]) or ""
