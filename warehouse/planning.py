"""What a stage has of many keys, as columns: see warehouse/commit_table.py."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.commit_table import (
    KEYS,
    current,
    identity,
    keys_of,
    rows_for,
    shared_fields,
    table_of,
)
from warehouse.commits import Commit

if TYPE_CHECKING:
    from warehouse.reading import Reading

FEW = 64  # keys whose records are looked for one by one
ATTEMPTS = 3  # to see a state that another process's gc does not tear apart


def current_keys(store: "Reading", stage: str, **where: str) -> pa.Table:
    """The keys of `Warehouse.current` as rows, in the same order."""
    keys = _rows(store, stage, (), where).select(KEYS.names)
    return keys.take(pc.sort_indices(identity(keys)))


def rows_of(store: "Reading", stage: str, keys: pa.Table, contents: Sequence[str] = ()) -> pa.Table:
    """The current commit of each of the keys as a row, without its key; nulls where there is none.

    `contents`: those to have a column of.
    """
    if keys.num_rows < FEW:
        records = store.current_records(stage, list(keys_of(keys)))
        return rows_for(keys, current(table_of(records, contents)))
    return rows_for(keys, _rows(store, stage, contents, shared_fields(keys)))


def are_made(
    store: "Reading", stage: str, keys: pa.Table, fingerprints: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Whether each of the keys has current data of its fingerprint, with all its files."""
    found = rows_of(store, stage, keys)
    fits = pc.fill_null(pc.equal(found["fingerprint"], fingerprints), False)
    paths = found["paths"].unify_dictionaries()
    listed = {text: json.loads(text) for text in pc.unique(paths.filter(fits)).to_pylist()}
    there = store.storage.existing({path for some in listed.values() for path in some})
    whole = [text for text, some in listed.items() if there.issuperset(some)]
    whole_files = pa.chunked_array(
        [
            pc.is_in(chunk.dictionary, pa.array(whole, pa.string())).take(chunk.indices)
            for chunk in paths.chunks
        ],
        pa.bool_(),
    )
    return pc.and_kleene(fits, whole_files)  # of a key without commit both are not known


def commits_named(store: "Reading", stage: str, fingerprints: Iterable[str]) -> dict[str, Commit]:
    """A current commit of each of the fingerprints, of whatever key, where there is one."""
    wanted = pa.array(fingerprints, pa.string())
    if not len(wanted):
        return {}
    rows = _rows(store, stage, (), {})
    rows = rows.filter(pc.is_in(rows["fingerprint"], wanted))
    return {c.fingerprint: c for c in store.current(stage, list(keys_of(rows))).values()}


def _rows(
    store: "Reading", stage: str, contents: Sequence[str], where: Mapping[str, str]
) -> pa.Table:
    for attempt in range(ATTEMPTS):
        try:
            return store.log.table(stage, contents, where)
        except FileNotFoundError:  # collected since it was listed: it is in a pack by now
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")
