"""Commits as the rows of a table: what a plan needs of a million of them, and no million objects.

A row has the fields of the key, those that the records of a key are sorted by, `paths`, and
content:<name> for contents, see `Commit.content`. Packs have these columns beside their records.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse.commits import Commit, Key, Record

ORDER = ("generation", "fingerprint", "version", "unique")
REPEATING = {"dataset", "split", "run_id", "experiment", "track_set", "paths"}
NAMED = pa.dictionary(pa.int32(), pa.string())
KEYS = pa.schema([(name, NAMED if name in REPEATING else pa.string()) for name in Key.__slots__])
ROWS = pa.schema(
    [
        *KEYS,
        ("generation", pa.int64()),
        ("fingerprint", pa.string()),
        ("version", pa.int64()),
        ("unique", pa.string()),
        ("paths", NAMED),  # of all files of a done commit, as a JSON list; null for a failed one
    ]
)
RECORD = [("record", pa.string()), ("commit", pa.string())]  # a pack's first columns
NO_FILES = json.dumps([])
BATCH = 1 << 16  # rows


def table_of(found: Sequence[tuple[Record, Commit]], contents: Iterable[str]) -> pa.Table:
    """The rows of commits, with a column for each of the contents."""
    commits = [commit for _, commit in found]
    columns = {name: [getattr(commit.key, name) for commit in commits] for name in KEYS.names}
    columns |= {name: [getattr(record, name) for record, _ in found] for name in ORDER}
    columns["paths"] = [
        json.dumps([*c.paths, *c.weights]) if c.status == "done" else None for c in commits
    ]
    for name in contents:
        columns[content_column(name)] = [
            commit.content(name) if name in contents_of([commit]) else None for commit in commits
        ]
    return pa.table(columns, schema=_schema(contents))


def contents_of(commits: Iterable[Commit]) -> list[str]:
    """The names of the contents that some of the commits have."""
    return sorted({name for commit in commits for name in (*commit.contents, *commit.files)})


def packed_rows(
    pack: pq.ParquetFile, contents: Sequence[str], where: Mapping[str, str], named: bool
) -> pa.Table | None:
    """The done rows of a pack with these values of key fields.

    `named`: with the columns that order the records of a key, and a column `record`. None for a
    pack without these columns, or with others, of a newer version.
    """
    there = pack.schema_arrow.names
    known = [*(name for name, _ in RECORD), *ROWS.names]
    if [name for name in there if not name.startswith(content_column(""))] != known:
        return None
    schema = _schema(contents)
    if named:
        schema = schema.insert(0, pa.field(*RECORD[0]))
    else:
        schema = pa.schema([schema.field(name) for name in unordered(schema.names)])
    parts = [schema.empty_table()]
    columns = [name for name in schema.names if name in there]
    for batch in pack.iter_batches(BATCH, columns=columns, use_threads=False):  # less memory
        part = chosen(pa.table(batch), where)
        for name in set(schema.names) - set(there):
            part = part.append_column(name, pa.nulls(part.num_rows, pa.string()))
        parts.append(part.select(schema.names).cast(schema))
    # Each part has a dictionary of its own, of all that the file has so far.
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def chosen(rows: pa.Table, where: Mapping[str, str]) -> pa.Table:
    """The rows of done commits with these values of key fields."""
    there = pc.is_valid(rows["paths"])
    for name, value in where.items():
        there = pc.and_(there, pc.equal(rows[name], value))
    return rows.filter(there)


def unordered(columns: Iterable[str]) -> list[str]:
    """The columns without those that only order the records of a key."""
    return [name for name in columns if name == "fingerprint" or name not in ORDER]


def distinct(rows: pa.Table) -> bool:
    """Whether no two rows have the same key."""
    keys = identity(rows, telling(rows))
    return bool(pc.count_distinct(keys).as_py() == rows.num_rows)


def current(rows: pa.Table) -> pa.Table:
    """Of each key the last of its done rows, as records are sorted, if it was not withdrawn."""
    if not distinct(rows):
        keys = identity(rows, telling(rows))
        ordered = rows.select(ORDER).append_column("key", keys)
        order = pc.sort_indices(ordered, [(name, "ascending") for name in ("key", *ORDER)])
        keys = keys.take(order).combine_chunks()
        rows = rows.take(order).filter(
            pa.concat_arrays([pc.not_equal(keys[:-1], keys[1:]), pa.array([True])])
        )
    return not_withdrawn(rows)


def not_withdrawn(rows: pa.Table) -> pa.Table:
    """The rows that have files."""
    there = pc.not_equal(rows["paths"], NO_FILES)
    return rows if pc.all(there).as_py() is not False else rows.filter(there)


def rows_for(keys: pa.Table, rows: pa.Table) -> pa.Table:
    """The row of each of the keys, without the key; one of nulls where there is none."""
    fields = telling(keys, rows)
    found = pc.index_in(identity(keys, fields), identity(rows, fields).combine_chunks())
    found = found.combine_chunks()
    others = {name: rows[name] for name in rows.column_names if name not in KEYS.names}
    schema = pa.schema([rows.schema.field(name) for name in others])
    del rows  # each column is let go when its values are there in the order of the keys
    columns = {
        name: others.pop(name).unify_dictionaries().combine_chunks().take(found)
        for name in schema.names
    }
    return pa.table(columns, schema=schema)


def telling(*tables: pa.Table) -> list[str]:
    """The fields of the keys that differ anywhere in these rows: what tells the keys apart."""
    values = {
        name: {value for rows in tables for value in pc.unique(rows[name]).to_pylist()}
        for name in KEYS.names
        if name in REPEATING
    }
    return [name for name in KEYS.names if len(values.get(name, "many")) > 1]


def identity(rows: pa.Table, fields: Sequence[str] = KEYS.names) -> pa.ChunkedArray:
    """These fields of each row's key as one text."""
    texts = [rows[name].cast(pa.string()) for name in fields]
    return pc.binary_join_element_wise(*texts, "\0") if len(texts) > 1 else texts[0]


def key_table(keys: Iterable[Key]) -> pa.Table:
    """Keys as rows."""
    keys = list(keys)
    columns = {name: [getattr(key, name) for key in keys] for name in KEYS.names}
    return pa.table(columns, schema=KEYS)


def video_keys(video_ids: Sequence[str], **others: str) -> pa.Table:
    """The keys of videos, with these values of the other fields."""
    videos = pa.array(video_ids, pa.string())
    fields = [field for field in KEYS if field.name != "video_id"]
    columns = {f.name: pa.repeat(others.get(f.name, ""), len(videos)).cast(f.type) for f in fields}
    return pa.table(columns | {"video_id": videos}).select(KEYS.names)


def keys_of(rows: pa.Table) -> Iterator[Key]:
    """Rows as keys."""
    columns = [rows[name].to_pylist() for name in KEYS.names]
    return (Key(*fields) for fields in zip(*columns, strict=True))


def with_fields(keys: pa.Table, **values: str) -> pa.Table:
    """The keys with other values of these fields."""
    for name, value in values.items():
        field = KEYS.field(name)
        column = pa.repeat(value, keys.num_rows).cast(field.type)
        keys = keys.set_column(keys.column_names.index(name), field, column)
    return keys


def shared_fields(keys: pa.Table) -> dict[str, str]:
    """The fields that have one value in all of the keys, and that value."""
    values = {name: pc.unique(keys[name]) for name in KEYS.names if name in REPEATING}
    return {name: found[0].as_py() for name, found in values.items() if len(found) == 1}


def _schema(contents: Iterable[str]) -> pa.Schema:
    return pa.schema([*ROWS, *((content_column(name), pa.string()) for name in contents)])


def content_column(name: str) -> str:
    """The column of contents of this name."""
    return f"content:{name}"
