"""Tokenised rows on disk: what is kept, cut, dropped and refused, in one process or many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("transformers")

import pyarrow as pa
import pyarrow.parquet as pq
from data_kit import chat, jsonl, parquet, stored, tokenizer, unchecked

from remote.trainer.data import files, prepare, workers
from remote.trainer.data.encode import LEARNED
from remote.trainer.data.rows import Request, Store
from remote.trainer.data.store import Tokens
from remote.trainer.problems import TrainError

pytestmark = pytest.mark.trainer

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"messages": chat(f"Say it {n} times.", " ".join(WORDS[n % 5 :]))} for n in range(count)
    ]


def content(store: Store) -> list[tuple[list[int], list[bool]]]:
    return [
        (part.ids.tolist(), part.learned.tolist())
        for index in range(len(store))
        for part in store.row(index)
    ]


def test_rows_are_in_the_order_of_the_files(tmp_path: Path) -> None:
    many = rows(7)
    one = jsonl(tmp_path / "b.jsonl", many[:3])
    two = parquet(tmp_path / "a.parquet", many[3:])
    store, made = stored(tmp_path, one, two), tokenizer()
    assert [store.source(n) for n in (0, 2, 3, 6)] == [
        f"{one}: row 1", f"{one}: row 3", f"{two}: row 1", f"{two}: row 4"
    ]  # fmt: skip
    for index, row in enumerate(many):
        (part,) = store.row(index)
        text = made.apply_chat_template(row["messages"], tokenize=False)
        assert made.decode(part.ids) == text
        answer = row["messages"][1]["content"]
        assert made.decode(part.ids[part.learned]) == f"{answer}<|im_end|>"
    assert store.lengths.tolist() == [[len(ids)] for ids, _ in content(store)]
    assert store.counts.tolist() == [[sum(learned)] for _, learned in content(store)]
    assert (store.report.rows, store.report.used, store.report.masked) == (7, 7, 0)
    assert store.report.tokens == int(store.lengths.sum())
    assert store.report.learned == int(store.counts.sum())


def test_a_pair_is_a_row_of_two_parts(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"prompt": "Why?", "chosen": "fox", "rejected": "a dog"}])
    store, made = stored(tmp_path, path, kind="pairs"), tokenizer()
    assert store.parts == 2
    assert store.lengths.shape == (1, 2)
    assert [made.decode(part.ids[part.learned]) for part in store.row(0)] == [
        "fox<|im_end|>", "a dog<|im_end|>"
    ]  # fmt: skip


def test_long_rows_are_cut_and_what_has_nothing_left_is_dropped(tmp_path: Path) -> None:
    short, long = chat("Why?", "fox"), chat("Why?", "the quick brown fox " * 20)
    hopeless = chat("Why? " * 200, "fox")
    path = jsonl(tmp_path / "a.jsonl", [{"messages": each} for each in (hopeless, long, short)])
    store = stored(tmp_path, path, max_length=40)
    assert store.lengths.tolist()[0] == [40]
    assert [store.source(n) for n in range(2)] == [f"{path}: row 2", f"{path}: row 3"]
    report = store.report
    assert (report.rows, report.used, report.truncated, report.masked) == (3, 2, 2, 1)


def test_nothing_may_be_left(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"messages": chat("Why? " * 50, "fox")}])
    store = stored(tmp_path, path, max_length=20)
    assert (len(store), store.report.masked, store.lengths.shape) == (0, 1, (0, 1))


def test_only_as_many_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_ROWS", 3)
    one = jsonl(tmp_path / "a.jsonl", rows(5))
    two = parquet(tmp_path / "b.parquet", rows(5))
    store = stored(tmp_path, one, two, limit=7)
    assert store.report.rows == 7
    assert store.source(6) == f"{two}: row 2"


def test_the_first_token_is_never_learned(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] + '<eos>' }}{% endfor %}"
    path = jsonl(tmp_path / "a.jsonl", [{"messages": chat("Why?", "fox")[1:]}])
    store = stored(tmp_path, path, made=tokenizer(template))
    (part,) = store.row(0)
    assert not part.learned[0]
    assert part.learned[1:].all()


def test_up_to_twenty_problems_each_with_its_row(tmp_path: Path) -> None:
    good, bad = rows(1)[0], {"messages": chat("Why?")}
    path = jsonl(tmp_path / "a.jsonl", [good, bad, {"text": "x"}, *[bad] * 30])
    with pytest.raises(TrainError) as caught:
        stored(tmp_path, path, key="evaluate.data")
    problems = caught.value.problems
    assert len(problems) == 20
    assert problems[0] == (
        f"evaluate.data: {path}: row 2: no assistant message with text: nothing to learn from"
    )
    assert problems[1].startswith(f"evaluate.data: {path}: row 3: has `text`; `messages`")
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_files_are_looked_at_before_work_begins(tmp_path: Path) -> None:
    good = parquet(tmp_path / "a.parquet", rows(2))
    broken, other, empty = (tmp_path / name for name in ("b.parquet", "c.parquet", "d.jsonl"))
    broken.write_bytes(b"PAR1")
    parquet(other, [{"text": "x"}])
    empty.touch()
    with pytest.raises(TrainError) as caught:
        stored(tmp_path, good, broken, other, empty)
    assert [problem.split(": ")[1:3] for problem in caught.value.problems] == [
        [str(broken), "cannot be read as parquet"],
        [str(other), "has `text`; `messages`, or `prompt` and `completion`, or `content` and"
         " `teacher_response` is needed"],
        [str(empty), "is empty"],
    ]  # fmt: skip


def test_a_file_of_blank_lines_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n")
    with pytest.raises(TrainError, match="no rows"):
        stored(tmp_path, path)


def test_tokens_that_the_model_does_not_know(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", rows(2))
    with pytest.raises(TrainError, match=r"row 1: has token \d+ and the model knows 100"):
        stored(tmp_path, path, vocabulary=100)


def test_a_tokenizer_without_a_fast_form(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", rows(1))
    with pytest.raises(TrainError, match=r"model: its tokenizer .object. has no fast form"):
        stored(tmp_path, path, made=object())


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(TrainError, match="tokenised rows cannot be written there"):
        stored(tmp_path, jsonl(tmp_path / "a.jsonl", rows(1)))


def test_what_is_there_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "a.jsonl", rows(4))
    before = stored(tmp_path, path)
    monkeypatch.setattr(prepare, "_build", lambda *_: pytest.fail("tokenised again"))
    after = stored(tmp_path, path)
    assert content(after) == content(before)


@pytest.mark.parametrize("damage", ["tokens.bin", "store.json"])
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", rows(4))
    before = content(stored(tmp_path, path))
    (found,) = (tmp_path / "cache").glob(f"*/{damage}")
    found.write_bytes(found.read_bytes()[:-4])
    assert content(stored(tmp_path, path)) == before


def test_the_fingerprint_is_of_the_tokens_and_nothing_else(tmp_path: Path) -> None:
    """A resume on another box finds other paths and times, and the same data."""
    many = rows(6)
    one = stored(tmp_path, jsonl(tmp_path / "a.jsonl", many))
    (tmp_path / "moved").mkdir()
    copied = parquet(tmp_path / "moved" / "b.parquet", many)
    os.utime(copied, (1, 1))
    assert stored(tmp_path / "moved", copied).fingerprint == one.fingerprint
    changed = [
        stored(tmp_path, jsonl(tmp_path / "c.jsonl", many[::-1])),
        stored(tmp_path, jsonl(tmp_path / "d.jsonl", many[:-1])),
        stored(tmp_path, jsonl(tmp_path / "a.jsonl", many), max_length=12),
    ]
    assert len({one.fingerprint, *(store.fingerprint for store in changed)}) == 4


def test_processes_make_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", rows(500))
    here = stored(tmp_path / "here", path)
    monkeypatch.setattr(prepare, "WORTH_PROCESSES_BYTES", 0)
    monkeypatch.setattr(files, "BLOCK_ROWS", 64)
    monkeypatch.setattr(prepare.os, "sched_getaffinity", lambda _: {0, 1})
    there = stored(tmp_path / "there", path)
    assert content(there) == content(here)
    assert there.fingerprint == here.fingerprint
    assert there.source(499) == f"{path}: row 500"


def test_a_row_that_cannot_be_read_is_named_by_processes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    answers = unchecked(b"Hi", b"\xff\xfe", b"No")
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "completion": answers}), path)
    monkeypatch.setattr(prepare, "WORTH_PROCESSES_BYTES", 0)
    monkeypatch.setattr(prepare.os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(TrainError) as caught:
        stored(tmp_path, path)
    (problem,) = caught.value.problems
    assert problem == (
        f"data: {path}: row 2: `completion` cannot be read: it holds a text that is not UTF-8"
    )


def test_what_is_wrong_with_the_template_is_told_by_processes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "a.parquet", rows(50))
    monkeypatch.setattr(prepare, "WORTH_PROCESSES_BYTES", 0)
    monkeypatch.setattr(prepare.os, "sched_getaffinity", lambda _: {0, 1})
    endless = "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"
    with pytest.raises(TrainError) as caught:
        stored(tmp_path, path, made=tokenizer(endless))
    (problem,) = caught.value.problems
    assert problem.startswith("template: the chat template ends the assistant's turns with no")


def test_a_process_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", rows(50))
    monkeypatch.setattr(prepare, "WORTH_PROCESSES_BYTES", 0)
    monkeypatch.setattr(prepare.os, "sched_getaffinity", lambda _: {0, 1})
    started: list[Any] = []
    begin = workers._Worker.__init__

    def killed(self: Any, recipe: Any) -> None:
        begin(self, recipe)
        self._process.kill()
        self._process.wait()
        started.append(self._process)

    monkeypatch.setattr(workers._Worker, "__init__", killed)
    with pytest.raises(TrainError, match=r"row 1 and on: the process .* ended with -9"):
        stored(tmp_path, path)
    assert all(process.poll() is not None for process in started)


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_all_ranks_get_the_same(tmp_path: Path, good: bool) -> None:
    """One does the work; the others wait, and get its result or its problems."""
    path = jsonl(tmp_path / "a.jsonl", [*rows(20), {"messages": chat("Why?", "x" if good else "")}])
    request = Request((str(path),), "chat", 512, None, tmp_path / "cache")
    together, found = threading.Barrier(3), []

    def rank(number: int) -> None:
        try:
            store = prepare.prepare(
                request, tokenizer(), rank=number, ranks=3, barrier=lambda: together.wait() and None
            )
            found.append(store.fingerprint)
        except TrainError as error:
            found.append(error.problems)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert len(set(found)) == 1
    assert isinstance(found[0], str) == good


def test_an_old_failure_is_forgotten(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", rows(2))
    store = stored(tmp_path, path)
    (folder,) = (each for each in (tmp_path / "cache").iterdir() if each.is_dir())
    said = folder.with_name(f"{folder.name}.problems.json")
    said.write_text(json.dumps(["old"]))
    assert stored(tmp_path, path).fingerprint == store.fingerprint
    assert not said.exists()


def test_reading_gives_pages_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows stay right when the map's pages are let go between them."""
    from remote.trainer.data import store as module

    path = jsonl(tmp_path / "a.jsonl", rows(50))
    expected = content(stored(tmp_path, path))
    monkeypatch.setattr(module, "HELD_ROWS", 3)
    assert content(stored(tmp_path, path)) == expected


def test_the_learned_bit_is_above_every_token(tmp_path: Path) -> None:
    stored(tmp_path, jsonl(tmp_path / "a.jsonl", rows(3)))
    (folder,) = (each for each in (tmp_path / "cache").iterdir() if each.is_dir())
    raw = np.fromfile(folder / "tokens.bin", dtype=np.uint32)
    assert len(Tokens(folder)) == 3
    assert (raw & ~LEARNED).max() < 1000
    assert 0 < (raw >= LEARNED).sum() < len(raw)


def test_no_process_outlives_a_killed_parent() -> None:
    script = (
        "import sys\n"
        "from remote.trainer.data.workers import _Worker\n"
        "worker = _Worker(None)\n"
        "print(worker._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    worker.wait(timeout=60)
    assert not worker.is_running()
