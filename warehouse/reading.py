"""Files into raw tables: every row with its number, its text and its values as text, whatever form the file has."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

import csv
import glob
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tandem.errors import InputError
from tandem.settings import Settings
from warehouse.mapping import REQUIRED, Format, Kind, Mapping, columns
from warehouse.views import first, quoted

Say = Callable[[str], None]

BLANK = "' ' || chr(9) || chr(10) || chr(13) || chr(160) || chr(65279)"
"""Characters that are cut from both ends of every value."""
LARGEST_ROW_BYTES = 16 * 1024 * 1024
TEXT_KEPT = 2_000
"""Characters of a rejected row that are kept."""


class Raw(NamedTuple):
    """What was read of one kind of file: the table `raw_KIND` of the connection."""

    kind: Kind
    names: list[str]
    """The files, by name."""
    columns: set[str]
    """Tandem's columns that a file or a constant of the mapping has."""
    changed_at: datetime
    """When the newest of the files was last changed, UTC."""

    @property
    def table(self) -> str:
        return f"raw_{self.kind}"


def read(connection: Any, settings: Settings, kind: Kind, given: str, mapping: Mapping, say: Say) -> Raw:
    """Read all files of `given` (a file, a folder or a glob) into `raw_KIND`, and rows that don't fit into `ragged`.

    Raises InputError where a file is missing, empty, in another encoding or lacks a required column.
    """
    paths = _paths(kind, given)
    wanted = columns(type(mapping.of(kind)))
    values = ", ".join(f"{name} VARCHAR" for name in wanted)
    connection.execute(f"""
        CREATE TABLE raw_{kind} (file_number INTEGER, row BIGINT, source VARCHAR, text VARCHAR, same UBIGINT, {values},
                                 attributes STRUCT("name" VARCHAR, "value" VARCHAR)[]);
        CREATE TABLE IF NOT EXISTS ragged (file VARCHAR, source VARCHAR, row BIGINT, detail VARCHAR, text VARCHAR);
    """)
    found: set[str] = set()
    for number, path in enumerate(paths):
        found |= _read_file(connection, settings, kind, number, path, mapping, say)
        rows = first(connection, f"SELECT count(*) FROM raw_{kind} WHERE file_number = {number}")[0]
        say(
            f"{kind}: {path.name}: {rows:,} rows read"
            if rows
            else f"{kind}: {path.name} has a header and no usable row"
        )
    changed_at = datetime.fromtimestamp(int(max(path.stat().st_mtime for path in paths)), UTC)
    return Raw(kind, sorted({path.name for path in paths}), found | mapping.of(kind).constant.keys(), changed_at)


def _paths(kind: Kind, given: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        found = [entry for entry in path.iterdir() if entry.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet")]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]  # noqa: PTH207
    if not found:
        raise InputError(f"--{kind} {given}: there is no such file; give a file, a folder or a glob in quotes")
    if empty := [path.name for path in found if not path.stat().st_size]:
        raise InputError(f"--{kind}: {empty[0]} is empty, it has not even a header; export it again")
    return sorted(found)


def _read_file(
    connection: Any, settings: Settings, kind: Kind, number: int, path: Path, mapping: Mapping, say: Say
) -> set[str]:
    """One file; gives Tandem's columns that it has."""
    is_parquet = path.suffix.lower() == ".parquet"
    form = mapping.of(kind).format
    header = _parquet_header(path) if is_parquet else _csv_header(kind, path, form)
    places = _places(kind, path, header, mapping)
    _say_ignored(kind, path, header, places, say)
    if is_parquet:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE read_rows AS {_parquet(path, header)}")
    else:
        _csv(connection, kind, path, form, len(header))
    _insert(connection, kind, number, path, header, places, mapping)
    return set(places)


def _csv_header(kind: Kind, path: Path, form: Format) -> list[str]:
    encoding = "utf-8-sig" if _is_utf8(form) else form.encoding
    try:
        with path.open(encoding=encoding, newline="") as file:
            header = next(csv.reader(file, delimiter=form.delimiter), [])
    except UnicodeError as error:
        raise _wrong_encoding(kind, path, form) from error
    except csv.Error as error:
        raise InputError(f"{path.name}: the header cannot be read: {error}") from error
    if not any(name.strip() for name in header):
        raise InputError(f"--{kind}: {path.name} has no header; its first line must name the columns")
    return _distinct(path, [name.strip() for name in header])


def _parquet_header(path: Path) -> list[str]:
    try:
        return _distinct(path, list(pyarrow.parquet.read_schema(path).names))
    except pa.ArrowInvalid as error:
        raise InputError(f"{path.name} is no Parquet file: {error}") from error


def _distinct(path: Path, header: list[str]) -> list[str]:
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise InputError(f"{path.name}: two columns are called {twice[0]!r}; rename one")
    return header


def _places(kind: Kind, path: Path, header: list[str], mapping: Mapping) -> dict[str, int]:
    """Where each of Tandem's columns stands in the file."""
    spec = mapping.of(kind)
    places = {}
    for column in columns(type(spec)):
        own = spec.own_name(column)
        if own in header:
            places[column] = header.index(own)
        elif spec.is_named(column) or (column in REQUIRED[kind] and column not in spec.constant):
            raise InputError(
                f"{path.name}: no column {own!r}; name the one that holds {column} in the mapping, "
                f'[{kind}] {column} = "…" '
                f"(or its delimiter, [{kind}.format] delimiter); its columns are {', '.join(header)}"
            )
    return places


def _say_ignored(kind: Kind, path: Path, header: list[str], places: dict[str, int], say: Say) -> None:
    further = [name for place, name in enumerate(header) if place not in places.values() and name]
    if further and kind == "customers":
        say(f"customers: {path.name}: attributes {', '.join(further)}")
    elif further:
        say(f"{kind}: {path.name}: ignored columns {', '.join(further)}")


def _csv(connection: Any, kind: Kind, path: Path, form: Format, width: int) -> None:
    """Rows of a CSV file as `read_rows` (row, c0, c1, …); rows with more or fewer values go to `ragged`."""
    ragged: list[tuple[int, int, str]] = []

    def keep(row: Any) -> str:
        ragged.append((row.number - 1, row.actual_columns, row.text[:TEXT_KEPT]))
        return "skip"

    names = [f"c{place}" for place in range(width)]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE read_rows ({', '.join(['row BIGINT', *(f'{name} VARCHAR' for name in names)])})"
    )
    try:
        reader = pyarrow.csv.open_csv(
            str(path),
            read_options=pyarrow.csv.ReadOptions(
                column_names=names,
                skip_rows_after_names=1,
                encoding="utf8" if _is_utf8(form) else form.encoding,
                use_threads=False,
                block_size=LARGEST_ROW_BYTES,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=form.delimiter, newlines_in_values=True, invalid_row_handler=keep
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        with reader:
            connection.register("stream", reader)
            connection.execute("INSERT INTO read_rows SELECT row_number() OVER (), * FROM stream")
            connection.unregister("stream")
    except UnicodeError as error:
        raise _wrong_encoding(kind, path, form) from error
    except Exception as error:
        if "UTF8" in str(error) or "codec" in str(error):
            raise _wrong_encoding(kind, path, form) from error
        if _has_no_rows(str(error)):
            return
        raise InputError(f"{path.name} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    _put_aside(connection, kind, path, ragged, width)


def _put_aside(connection: Any, kind: Kind, path: Path, ragged: list[tuple[int, int, str]], width: int) -> None:
    """Ragged rows to their table, and the numbers of the other rows as they stand in the file."""
    if not ragged:
        return
    rows, actual, texts = (list(values) for values in zip(*sorted(ragged), strict=True))
    details = [f"{count} values where the header has {width}" for count in actual]
    connection.register("odd", pa.table({"row": rows, "detail": details, "text": texts}))
    connection.execute(f"""
        INSERT INTO ragged SELECT {quoted(kind)}, {quoted(path.name)}, row, detail, text FROM odd;
        CREATE OR REPLACE TEMP TABLE read_rows AS
            WITH before AS (SELECT row - row_number() OVER (ORDER BY row) AS rows,
                                   row_number() OVER (ORDER BY row) AS odd FROM odd),
            shift AS (SELECT rows, max(odd) AS odd FROM before GROUP BY rows)
            SELECT read_rows.row + coalesce(shift.odd, 0) AS row, read_rows.* EXCLUDE (row)
            FROM read_rows ASOF LEFT JOIN shift ON read_rows.row > shift.rows;
    """)
    connection.unregister("odd")


def _parquet(path: Path, header: list[str]) -> str:
    """SQL for a Parquet file's rows with every value as text, as a person would write it."""
    schema = pyarrow.parquet.read_schema(path)
    values = ", ".join(f"{_as_text(name, schema.field(name).type)} AS c{place}" for place, name in enumerate(header))
    return f"SELECT file_row_number + 1 AS row, {values} FROM read_parquet({quoted(str(path))}, file_row_number = true)"


def _as_text(name: str, kind: pa.DataType) -> str:
    column = '"' + name.replace('"', '""') + '"'
    if pa.types.is_floating(kind):
        exact = f"CAST(CAST({column} AS DECIMAL(30,12)) AS VARCHAR)"
        return f"CASE WHEN isfinite({column}) AND abs({column}) < 1e17 THEN {exact} ELSE CAST({column} AS VARCHAR) END"
    if pa.types.is_list(kind):
        return f"array_to_string({column}, ';')"
    return f"CAST({column} AS VARCHAR)"


def _insert(
    connection: Any, kind: Kind, number: int, path: Path, header: list[str], places: dict[str, int], mapping: Mapping
) -> None:
    """`read_rows` into `raw_KIND` under Tandem's names, with the mapping's constants where a file has no column."""
    spec = mapping.of(kind)
    values = []
    for column in columns(type(spec)):
        held = f"nullif(trim(c{places[column]}, {BLANK}), '')" if column in places else "NULL"
        constant = spec.constant.get(column)
        values.append(held if constant is None else f"coalesce({held}, {quoted(constant)})")
    all_values = ", ".join(f"coalesce(c{place}, '')" for place in range(len(header)))
    further = [(name, place) for place, name in enumerate(header) if place not in places.values() and name]
    pairs = ", ".join(
        f"{{'name': {quoted(name)}, 'value': nullif(trim(c{place}, {BLANK}), '')}}" for name, place in further
    )
    attributes = (
        f"list_filter([{pairs}], lambda pair: pair.value IS NOT NULL)" if pairs and kind == "customers" else "[]"
    )
    connection.execute(f"""
        INSERT INTO raw_{kind}
            SELECT {number}, row, {quoted(path.name)},
                   left(concat_ws({quoted(spec.format.delimiter)}, {all_values}), {TEXT_KEPT}),
                   hash({all_values}), {", ".join(values)}, {attributes}
            FROM read_rows ORDER BY row;
        DROP TABLE read_rows;
    """)


def _is_utf8(form: Format) -> bool:
    return form.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def _has_no_rows(message: str) -> bool:
    return "Empty CSV file" in message


def _wrong_encoding(kind: Kind, path: Path, form: Format) -> InputError:
    return InputError(
        f"{path.name}: is not written in {form.encoding}; name its encoding in the mapping, "
        f'[{kind}.format] encoding = "cp1252" (or what it is)'
    )
