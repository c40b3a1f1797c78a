"""The tiny model and its template: what is learned is what the assistant said."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from transformers import (
    AutoConfig,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    ViTConfig,
)

from remote.trainer.data.batch import Layout
from remote.trainer.model import (
    layout_of,
    load_config,
    load_policy,
    load_tokenizer,
    lora_config,
)
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


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TrainError, match="no tokenizer"):
        load_tokenizer(str(tmp_path / "none"), None)


@pytest.mark.parametrize("name", ["gemma3", "mistral3"])
def test_a_model_of_images_too(tiny: Path, tmp_path: Path, name: str) -> None:
    AutoConfig.for_model(name).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tiny / "model"), None)
    with pytest.raises(TrainError, match=f"is of text and more .{name}.; say one of text alone"):
        load_config(str(tmp_path), tokenizer)


def test_a_model_whose_text_stands_alone(tiny: Path, tmp_path: Path) -> None:
    AutoConfig.for_model("llama4").save_pretrained(tmp_path)
    config = load_config(str(tmp_path), load_tokenizer(str(tiny / "model"), None))
    assert config.model_type == "llama4_text"


def test_torn_files(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "model", tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    settings = parse({**RECORD, "model": str(tmp_path)})
    config = load_config(str(tmp_path), load_tokenizer(str(tmp_path), None))
    with pytest.raises(TrainError, match=r"^model: .*: cannot be loaded: "):
        load_policy(settings, config)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TrainError, match="no tokenizer: "):
        load_tokenizer(str(tmp_path), None)


def test_lora_in_pefts_words() -> None:
    config = lora_config(Lora(r=4, alpha=9, dropout=0.25))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 9, 0.25)
    assert config.target_modules == "all-linear"
    assert lora_config(Lora(target_modules=("q_proj",))).target_modules == {"q_proj"}


def test_a_tokenizer_of_another_model(tiny: Path) -> None:
    tokenizer = load_tokenizer(str(tiny / "model"), None)
    tokenizer.add_tokens(["<one>", "<more>"])
    with pytest.raises(TrainError, match="they do not belong together"):
        load_config(str(tiny / "model"), tokenizer)


def test_which_models_take_sequences_end_to_end() -> None:
    settings = parse(RECORD)
    assert layout_of(LlamaConfig(), settings) is Layout.FLAT
    assert layout_of(Gemma2Config(), settings) is Layout.PADDED
    assert layout_of(MambaConfig(), settings) is Layout.PADDED
    assert layout_of(GptOssConfig(), settings) is Layout.PADDED, "sinks"
    eager = parse({**RECORD, "args": {"attn_implementation": "eager"}})
    assert layout_of(LlamaConfig(), eager) is Layout.PADDED
    with pytest.raises(TrainError, match="not a causal language model"):
        layout_of(ViTConfig(), settings)


RECORD = {"method": "sft", "model": "m", "data": "d.jsonl", "full": True}
