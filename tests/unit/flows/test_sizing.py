"""Where the forecast of a plan takes its sizes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.core.forecast import GB, Forecast
from orchestrator.core.spec import JobFileError, parse_job
from orchestrator.flows.sizing import forecast_of

CONFIG = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip
TRAIN = "train: {method: sft, model: base, data: d.jsonl%s}"


def found(folder: Path, what: str, checkpoints: str = "") -> Forecast | None:
    text = f"name: demo\ncheckpoints: {{path: out{checkpoints}}}\n{what}\n"
    return forecast_of(parse_job(text.encode(), file="f.yaml", base=folder), None, 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_the_model_that_is_here_says_how_large_its_checkpoints_are(folder: Path) -> None:
    plain = found(folder, TRAIN % ", full: true, args: {max_steps: 100, save_steps: 50}")
    assert plain
    assert plain.checkpoint.low / GB == pytest.approx(48.2, abs=0.1)
    assert (plain.saves, plain.basis) == (2, "8.03 billion parameters, 8.03 trained")
    zero = found(folder, TRAIN % ", full: true, deepspeed: {zero_optimization: {stage: 2}}")
    assert zero and zero.checkpoint.low > 2 * plain.checkpoint.low
    adapter = found(folder, TRAIN % ", lora: true")
    assert adapter and adapter.checkpoint.high < GB
    quantised = found(folder, TRAIN % ", qlora: true")
    assert quantised and quantised.checkpoint == adapter.checkpoint
    gad = found(folder, TRAIN.replace("sft", "gad") % ", lora: true")
    assert gad and gad.checkpoint == adapter.checkpoint.times(2)


def test_the_job_file_has_the_last_word(folder: Path) -> None:
    said = found(folder, TRAIN % ", full: true", ", size_gb: 3.5")
    assert said
    assert (said.checkpoint.low, said.basis) == (3_500_000_000, "checkpoints.size_gb")
    assert said.box.low == 3_500_000_007
    assert found(folder, "run: train", ", size_gb: 3.5")


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "[" * 100_000, " " * (2**20 + 1)])
def test_without_a_size_there_is_no_forecast(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "base").mkdir()
    if text is not None:
        (tmp_path / "base" / "config.json").write_text(text)
    assert found(tmp_path, TRAIN % ", full: true") is None
    assert found(tmp_path, "run: train") is None


@pytest.mark.parametrize(
    ("checkpoints", "said"),
    [
        (", keep: {}", "must say what stays"),
        (", keep: {best: {metric: loss, mode: lowest}}", "mode"),
        (", keep: {last: 0}", "last"),
        (", size_gb: 0", "size_gb"),
    ],
)
def test_a_policy_that_keeps_nothing_is_none(tmp_path: Path, checkpoints: str, said: str) -> None:
    with pytest.raises(JobFileError, match=said):
        found(tmp_path, "run: train", checkpoints)
