"""What is redacted keeps its length, wherever it stands."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.clock import ManualClock

from orchestrator.core.redact import Redactor, secret_values
from orchestrator.core.run import Lease
from orchestrator.flows.link import Link

SECRET = "hunter2-öä"


def test_texts_in_any_place() -> None:
    redactor = Redactor([SECRET, "abc"])
    assert redactor.any({"a": [f"x{SECRET}y", 1, None], "b": "abc"}) == {
        "a": [f"x{'*' * len(SECRET)}y", 1, None],
        "b": "abc",
    }


def test_the_longest_first() -> None:
    assert Redactor(["hunter2", "hunter2-more"]).any("hunter2-more") == "*" * 12


def test_values_of_a_secrets_file() -> None:
    assert secret_values("A=1=2\n\nB=\nnothing\n") == ["1=2", ""]


@given(cuts=st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_secret_split_over_reads_is_not_stored(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    data = f"before {SECRET} between {SECRET}{SECRET} after".encode()
    folder = tmp_path_factory.mktemp("log")
    unused: Any = None
    link = Link(Lease("demo-1", 1), unused, ManualClock(), folder, Redactor([SECRET]))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in itertools.pairwise(edges):
        chunk = base64.b64encode(data[begin:end]).decode()
        assert link.take_in("demo-1-1", [{"file": "log", "offset": begin, "data": chunk}])
    stored = (Path(folder) / "demo-1-1" / "log").read_bytes()
    assert len(stored) == len(data)
    assert SECRET.encode() not in stored
    assert stored.startswith(b"before *")
    assert stored.endswith(b"* after")
