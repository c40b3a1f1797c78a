"""The tiny model and its template: what is learned is what the assistant said."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from remote.trainer.arguments import arguments, deepspeed_config
from remote.trainer.model import load_tokenizer, lora_config
from remote.trainer.problems import TrainError
from remote.trainer.settings import Lora, parse
from remote.trainer.tiny_model import build

# The libraries' notes to each other are no failure of ours.
pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    text = folder / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 20)
    build(folder / "model", [text], hidden=16, layers=1)
    build(folder / "again", [text], hidden=16, layers=1)
    return folder


def test_the_same_text_gives_the_same_bytes(tiny: Path) -> None:
    names = sorted(path.name for path in (tiny / "model").iterdir())
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(names)
    same, different, unread = filecmp.cmpfiles(tiny / "model", tiny / "again", names, shallow=False)
    assert (same, different, unread) == (names, [], [])


def test_the_assistant_and_its_end_are_learned_and_nothing_else(tiny: Path) -> None:
    tokenizer = load_tokenizer(str(tiny / "model"), None)
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "To be?"},
        {"role": "assistant", "content": "Or not."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "That is the question."},
    ]
    coded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(coded["input_ids"], coded["assistant_masks"], strict=True)
    learned = tokenizer.decode([token for token, learn in pairs if learn])
    assert learned == "Or not.<|end|>That is the question.<|end|>"


def test_a_template_without_marks_is_refused(tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "bare.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(TrainError, match="does not mark the assistant's words"):
        load_tokenizer(str(tiny / "model"), template)


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TrainError, match="no tokenizer"):
        load_tokenizer(str(tmp_path / "none"), None)


def test_lora_in_pefts_words() -> None:
    config = lora_config(Lora(r=4, alpha=9, dropout=0.25))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 9, 0.25)
    assert config.target_modules == "all-linear"
    assert lora_config(Lora(target_modules=("q_proj",))).target_modules == {"q_proj"}


def _settings(**changes: Any) -> Any:
    return parse({"method": "sft", "model": "m", "data": "d.jsonl", "full": True, **changes})


def test_arguments_have_the_defaults_of_a_watched_run(tmp_path: Path) -> None:
    args = arguments(_settings(args={"max_steps": 3}), tmp_path, on_gpu=False)
    assert (args.max_steps, args.logging_steps, args.logging_nan_inf_filter) == (3, 1, False)
    assert (args.bf16, args.use_cpu, args.assistant_only_loss) == (False, True, True)
    assert args.report_to == []
    assert args.output_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({"max_step": 3}, "args.max_step: unknown argument; did you mean max_steps?"),
        ({"packing": True}, "args.packing: say it as packing"),
        ({"max_length": 3}, "args.max_length: say it as max_seq_length"),
        ({"save_strategy": "sometimes"}, "args: sometimes is not a valid"),
    ],
    ids=["typo", "packing", "max_length", "bad-value"],
)
def test_a_wrong_argument_is_named(tmp_path: Path, args: dict[str, Any], problem: str) -> None:
    with pytest.raises(TrainError) as caught:
        arguments(_settings(args=args), tmp_path, on_gpu=False)
    assert caught.value.problems[0].startswith(problem)


def test_deepspeed_needs_no_compiler_on_a_cpu() -> None:
    given = {"optimizer": {"type": "AdamW"}}
    on_cpu = deepspeed_config(_settings(deepspeed=given), on_gpu=False)
    on_gpu = deepspeed_config(_settings(deepspeed=given), on_gpu=True)
    assert on_cpu is not None
    assert on_gpu is not None
    assert on_cpu["optimizer"]["params"] == {"torch_adam": True}
    assert "params" not in on_gpu["optimizer"]
    assert given == {"optimizer": {"type": "AdamW"}}


def test_a_save_that_ends_later_is_refused() -> None:
    given = {"checkpoint": {"writer": {"type": "FAST"}}}
    with pytest.raises(TrainError, match=r"checkpoint\.writer"):
        deepspeed_config(_settings(deepspeed=given), on_gpu=False)
