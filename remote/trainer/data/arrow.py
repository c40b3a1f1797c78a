"""Arrow's columns as Python's rows, several times faster than pyarrow's own `to_pylist`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa


def python_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Each row as a mapping, nested as it is in the file."""
    names = batch.schema.names
    values = [_values(column) for column in batch.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _values(array: pa.Array) -> list[Any]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if pa.types.is_struct(kind):
        return _without_nulls(array, _structs(array))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _without_nulls(array, _lists(array))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array.to_numpy(zero_copy_only=False).tolist()
    return array.to_pylist()


def _structs(array: pa.Array) -> list[Any]:
    names = [field.name for field in array.type]
    fields = [_values(field) for field in array.flatten()]
    if not fields:
        return [{} for _ in range(len(array))]
    return [dict(zip(names, values, strict=True)) for values in zip(*fields, strict=True)]


def _lists(array: pa.Array) -> list[Any]:
    bounds = array.offsets.to_pylist()
    begin = bounds[0]
    values = _values(array.values.slice(begin, bounds[-1] - begin))
    return [values[first - begin : end - begin] for first, end in pairwise(bounds)]


def _without_nulls(array: pa.Array, values: list[Any]) -> list[Any]:
    if array.null_count == 0:
        return values
    valid = array.is_valid().to_pylist()
    return [value if good else None for value, good in zip(values, valid, strict=True)]
