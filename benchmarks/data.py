"""How fast rows become tokens, and in how much memory: `python benchmarks/data.py`.

Writes a parquet file of short chats (10 million by default) cut out of Python's own manual, trains
a tokenizer on the same, prepares the file as a run of SFT does, and streams an epoch of it in the
order of training. Prints rows a second and the most memory that the process and its workers held
at once (RSS, in which a page that two of them share counts twice). `--limit-gib` makes it fail
above that.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

GIB = 2**30
WRITTEN_AT_ONCE = 100_000
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="default: a temporary one; takes 5 GB")
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--limit-gib", type=float, default=2.0)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        measure(options.folder)
        return
    with tempfile.TemporaryDirectory() as spare:
        folder = options.folder or Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, rows=options.rows, vocabulary=options.vocabulary)
        # A process of its own, so that what wrote the file does not count.
        command = [sys.executable, __file__, "--inner", "--folder", str(folder)]
        figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    worst = max(figures["prepare_peak_bytes"], figures["stream_peak_bytes"]) / GIB
    if worst > options.limit_gib:
        sys.exit(f"{worst:.2f} GiB is more than {options.limit_gib} GiB")


def make(folder: Path, *, rows: int, vocabulary: int) -> None:
    """Write `chat.parquet` and `tokenizer/` into the folder, unless they are there."""
    lines = [line for text in topics.values() for line in text.splitlines() if len(line) > 20]
    if not (folder / "tokenizer").exists():
        make_tokenizer(folder / "tokenizer", lines, vocabulary)
    path = folder / "chat.parquet"
    if path.exists() and pq.ParquetFile(path).metadata.num_rows == rows:
        return
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("messages", pa.list_(message))])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, WRITTEN_AT_ONCE):
            count = min(WRITTEN_AT_ONCE, rows - first)
            writer.write_table(pa.table({"messages": list(chats(lines, count, first))}, schema))


def chats(lines: list[str], count: int, seed: int) -> Iterator[list[dict[str, str]]]:
    """Questions and answers of at most 40 characters each."""
    pick = random.Random(seed).choice
    for _ in range(count):
        question, answer = pick(lines).strip()[:40], pick(lines).strip()[:40]
        yield [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def make_tokenizer(folder: Path, lines: list[str], vocabulary: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    pairs.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def measure(folder: Path) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoTokenizer

    from remote.trainer.data.order import Order
    from remote.trainer.data.prepare import prepare
    from remote.trainer.data.rows import Request

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    files = (str(folder / "chat.parquet"),)
    request = Request(files, "chat", max_length=1024, template=None, cache=folder / "cache")
    with Memory() as memory:
        began = time.perf_counter()
        store = prepare(request, tokenizer)
        prepare_s = time.perf_counter() - began
    figures = {
        "cores": len(os.sched_getaffinity(0)),
        "rows": store.report.rows,
        "tokens": store.report.tokens,
        "parquet_bytes": Path(files[0]).stat().st_size,
        "prepare_s": round(prepare_s, 1),
        "prepare_peak_bytes": memory.peak,
    }
    with Memory() as memory:
        began = time.perf_counter()
        order = Order(store, batch=1024, seed=0)
        read = sum(
            len(store.row(row)[0].ids)
            for step in range(len(store) // 1024)
            for item in order.step(step).items
            for row in item
        )
        figures["stream_s"] = round(time.perf_counter() - began, 1)
    figures.update(streamed_tokens=read, stream_peak_bytes=memory.peak)
    print(json.dumps(figures))


class Memory:
    """The most that this process and those below it held at once, looked at ten times a second."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.1):
            self.peak = max(self.peak, sum(map(_resident, [me, *me.children(recursive=True)])))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def report(figures: dict[str, float]) -> None:
    rows, tokens = figures["rows"], figures["tokens"]
    print(f"{rows:,} rows, {figures['parquet_bytes'] / GIB:.2f} GiB of parquet, {tokens:,} tokens")
    for name in ("prepare", "stream"):
        took, peak = figures[f"{name}_s"], figures[f"{name}_peak_bytes"] / GIB
        print(
            f"{name:<8} {took:8.1f} s  {rows / took:12,.0f} rows/s  {tokens / took:12,.0f} tokens/s"
            f"  at most {peak:.2f} GiB, on {figures['cores']:.0f} cores"
        )


if __name__ == "__main__":
    main()
