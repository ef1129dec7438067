"""Whether rows, and files of other versions, fit the schema of a table."""

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.schemas import WarehouseError, schema_of


def conform(name: str, table: pa.Table) -> pa.Table:
    """Return `table` in the column order and exact types of TABLES[name].

    Raises WarehouseError for missing, unknown or duplicate columns, for nulls where none may be,
    and for values that do not fit the column's type.
    """
    schema = schema_of(name)
    if sorted(table.column_names) != sorted(schema.names):
        raise WarehouseError(
            f"Table {name!r} was given the columns {', '.join(table.column_names) or '(none)'}. "
            f"It has exactly these: {', '.join(schema.names)}."
        )
    columns = []
    for field in schema:
        where = f"Column {field.name!r} of table {name!r}"
        try:
            column = table[field.name].cast(field.type)
        except pa.ArrowException as error:
            raise WarehouseError(
                f"{where} has type {table[field.name].type}, which does not fit {field.type}: "
                f"{error}. Convert it before publishing."
            ) from error
        if column.null_count and not field.nullable:
            raise WarehouseError(
                f"{where} has {column.null_count} null values and allows none. Fill them in."
            )
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def readable_as(name: str, found: pa.Schema) -> bool:
    """Whether files of the schema `found` can be read as table `name`.

    Files of earlier versions may lack columns that may be null, and allow no nulls where there may
    be some now. Those of newer versions may have more columns.
    """
    there = set(found.names)
    return all(
        field.type == found.field(field.name).type
        and field.nullable >= found.field(field.name).nullable
        if field.name in there
        else field.nullable or field.name == "track_set"
        for field in schema_of(name)
    )


def completed(name: str, table: pa.Table, track_set: str = "") -> pa.Table:
    """The rows of a file of table `name` in its schema, with nulls for columns it was without.

    Files of format 2 have no track set: it is that of the commit they belong to.
    Raises pa.ArrowException or KeyError when they do not fit it.
    """
    schema = schema_of(name)
    for field in schema:
        if field.name not in table.column_names:
            if field.name == "track_set" and track_set:
                values = pa.repeat(pa.scalar(track_set), table.num_rows)
            elif field.nullable:
                values = pa.nulls(table.num_rows, field.type)
            else:
                continue
            table = table.append_column(field, values)
    return table.select(schema.names).cast(schema)


def require_value(name: str, table: pa.Table, column: str, value: str) -> None:
    """Raise WarehouseError when a row of `table` has anything but `value` in `column`."""
    others = table.filter(pc.fill_null(pc.not_equal(table[column], value), True))
    if others.num_rows:
        raise WarehouseError(
            f"Table {name!r} has {others.num_rows} rows with {column} = "
            f"{others[column][0].as_py()!r}, but the key says {value!r}. Publish them under "
            "their own key."
        )
