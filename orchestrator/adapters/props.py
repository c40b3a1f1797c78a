"""What a rehearsal makes with the packages of the extra `trainer`, in processes of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from orchestrator.errors import Missing

_HEAD = """
import json, sys
import pyarrow.parquet as pq
source, dest, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
with pq.ParquetFile(source) as file:
    batch = next(file.iter_batches(batch_size=rows), None)
    import pyarrow as pa
    table = pa.Table.from_batches([batch] if batch is not None else [], schema=file.schema_arrow)
pq.write_table(table, dest)
print(json.dumps(table.to_pylist(), default=str)[:200000])
"""
LONGEST_S = 120


def shrink_parquet(source: Path, dest: Path, rows: int) -> str:
    """The first rows of `source` as the file `dest`, and as text. Raises Missing."""
    _require("pyarrow", "parquet data cannot be made small")
    return _run("-c", _HEAD, str(source), str(dest), str(rows))


def make_model(dest: Path, texts: Path) -> None:
    """A model of two layers whose tokenizer knows the words of `texts`. Raises Missing."""
    for package in ("torch", "transformers"):
        _require(package, "no stand-in for the model can be made")
    _run("-m", "remote.trainer.tiny", "--out", str(dest), "--texts", str(texts))


def is_importable(module: str) -> bool:
    """Whether boxes of this machine, which share its Python, have the module."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _require(package: str, what: str) -> None:
    if not is_importable(package):
        raise Missing(f"{package} is not here, so {what}", hint="pip install 'gpujob[trainer]'")


def _run(*words: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"no stand-in for data or model was made in {LONGEST_S} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise Missing(f"a stand-in for data or model could not be made: {last[:300]}")
    return done.stdout
