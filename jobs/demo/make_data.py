"""Chat examples from real text that every machine has: the standard library's documentation.

    python jobs/demo/make_data.py --out data/chat.parquet [--texts data/text.txt]

The user asks what a function or class does; the assistant answers with its docstring.
The same Python gives the same rows. Needs pyarrow, and no network.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq

LEAST_ROWS = 800
# Importing these opens a window, a browser or prints; or they are for one platform.
LEFT_OUT = {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "lib2to3", "test"}
QUESTIONS = (
    "What does {name} do?",
    "Explain {name} from Python's standard library.",
    "How is {name} documented?",
)


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore")  # half of the library warns that it will leave the library
    rows = list(examples())
    if len(rows) < LEAST_ROWS:
        sys.exit(f"error: only {len(rows)} docstrings found; is this Python run with -OO?")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.suffix == ".jsonl":
        lines = (json.dumps(row) + "\n" for row in rows)
        options.out.write_text("".join(lines), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), options.out)
    if options.texts:
        options.texts.parent.mkdir(parents=True, exist_ok=True)
        options.texts.write_text("\n".join(_text(row) for row in rows), encoding="utf-8")
    sys.stdout.write(f"wrote {len(rows)} chat examples to {options.out}\n")


def examples() -> Iterator[dict[str, list[dict[str, str]]]]:
    """One chat a documented function or class of the standard library, each docstring once."""
    seen: set[str] = set()
    for module in _modules():
        for name, documentation in _documented(module):
            if documentation in seen:
                continue
            question = QUESTIONS[len(seen) % len(QUESTIONS)].format(name=name)
            seen.add(documentation)
            yield {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": documentation},
                ]
            }


def _modules() -> Iterator[ModuleType]:
    for name in sorted(sys.stdlib_module_names - LEFT_OUT):
        if name.startswith("_"):
            continue
        try:
            module = importlib.import_module(name)
        except Exception:  # a module may be missing from this build in its own way
            continue
        yield module


def _documented(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in sorted(vars(module).items()):
        public = not name.startswith("_") and (inspect.isroutine(value) or inspect.isclass(value))
        if not public or getattr(value, "__module__", None) != module.__name__:
            continue
        documentation = inspect.cleandoc(value.__doc__ or "")
        if len(documentation) >= 40:
            yield f"{module.__name__}.{name}", documentation


def _text(row: dict[str, list[dict[str, str]]]) -> str:
    return "\n".join(message["content"] for message in row["messages"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help=".parquet or .jsonl")
    parser.add_argument("--texts", type=Path, help="also the bare text, to train a tokenizer on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
