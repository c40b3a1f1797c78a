"""Whole evaluations of a tiny model: what they measure, write and refuse."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from data_kit import chat, jsonl
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from remote.trainer.evaluate import asked, command
from remote.trainer.evaluate.generate import generate
from remote.trainer.evaluate.settings import Sampling, parse
from remote.trainer.problems import TrainError
from remote.trainer.tiny_model import build

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore")]

GREEDY = Sampling(max_new_tokens=6, temperature=0.0, top_p=1.0)


class Place:
    """A folder with a tiny model, an adapter for it, all its weights changed, and data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = folder / "text.txt"
        text.write_text("How much from 1 to 5? The quick brown fox 1 2 3 4 5\n" * 50)
        build(folder / "tiny", [text], hidden=32, vocabulary=300, layers=2, spread=0.3)
        self._make_adapter()
        chats = [{"messages": chat(f"How much {n}?", "fox " * (1 + n % 5))} for n in range(9)]
        jsonl(folder / "chat.jsonl", chats)
        jsonl(folder / "people.jsonl", [self._person(n) for n in range(24)])

    def settings(self, out: str, **changes: Any) -> Any:
        base = {"model": "tiny", "batch_size": 4, "max_seq_length": 200, "output": out}
        record = {**base, **changes}
        for key in ("model", "output", "checkpoint", "template"):
            if key in record:
                record[key] = str(self.folder / record[key])
        if isinstance(record.get("baseline"), str):
            record["baseline"] = str(self.folder / record["baseline"])
        for task in ("loss", "generate", "socrates"):
            if task in record:
                record[task] = {**record[task], "data": str(self.folder / record[task]["data"])}
        return parse(record)

    def run(self, out: str, **changes: Any) -> Any:
        record = command.evaluate(self.settings(out, **changes))
        assert json.loads((self.folder / out / "metrics.json").read_text()) == record
        return record

    def _person(self, number: int) -> dict[str, Any]:
        cell = {"study_id": f"s{number % 2}", "condition_num": 1, "task_num": number % 3}
        scale = {"scale_min": 1, "scale_max": 5}
        answer = 1 + number % 5
        return {**cell, **scale, "prompt": f"How much from 1 to 5? {number}", "response": answer}

    def _make_adapter(self) -> None:
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(self.folder / "tiny")
        lm = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
        with torch.no_grad():
            for name, weight in lm.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        lm.save_pretrained(self.folder / "adapter")
        lm.merge_and_unload().save_pretrained(self.folder / "merged")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(autouse=True)
def in_a_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)  # the cache of tokenised rows goes below


LOSS = {"data": "chat.jsonl"}
PEOPLE = {"data": "people.jsonl", "max_new_tokens": 4, "resamples": 50}


def test_the_loss_is_the_mean_over_learned_tokens(place: Place) -> None:
    """Against logits, a row at a time, without padding."""
    found = place.run("loss", loss=LOSS)["results"]["baseline"]["loss"]
    lm = AutoModelForCausalLM.from_pretrained(place.folder / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(place.folder / "tiny")
    total, count = 0.0, 0
    for line in (place.folder / "chat.jsonl").read_text().splitlines():
        coded = tokenizer.apply_chat_template(
            json.loads(line)["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        ids = torch.tensor(coded["input_ids"])
        with torch.no_grad():
            logs = lm(ids[None]).logits[0].double().log_softmax(-1)
        for at in range(1, len(ids)):
            if coded["assistant_masks"][at]:
                total -= float(logs[at - 1, ids[at]])
                count += 1
    assert found["tokens"] == count
    assert found["loss"] == pytest.approx(total / count, abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert (found["examples"], found["truncated"], found["dropped"]) == (9, 0, 0)


def test_batches_change_nothing(place: Place) -> None:
    lm = AutoModelForCausalLM.from_pretrained(place.folder / "tiny").eval()
    prompts = [[5 + n, 6, 7, 8 + n][: 1 + n % 4] for n in range(9)]
    alone, together = (
        generate(lm, prompts, sampling=GREEDY, stops=[2], pad=0, batch_size=size, seed=0)
        for size in (1, 4)
    )
    assert alone == together
    assert len({tuple(each) for each in alone}) > 1


def test_greedy_is_the_likeliest_token_each_time_up_to_a_stop(place: Place) -> None:
    lm = AutoModelForCausalLM.from_pretrained(place.folder / "tiny").eval()
    prompt, expected = [5, 6, 7], []
    with torch.no_grad():
        for _ in range(6):
            logits = lm(torch.tensor([prompt + expected])).logits
            expected.append(int(logits[0, -1].argmax()))
    told = [
        generate(lm, [prompt], sampling=GREEDY, stops=[stop], pad=0, batch_size=1, seed=0)[0]
        for stop in (299, expected[3])
    ]
    assert told[0] == expected
    assert told[1] == expected[: expected.index(expected[3])]


@pytest.mark.parametrize("adapted", [False, True], ids=["model", "adapter"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "drawn"])
def test_a_model_s_own_generation_settings_change_nothing(
    place: Place, adapted: bool, temperature: float
) -> None:
    lm = AutoModelForCausalLM.from_pretrained(place.folder / "tiny").eval()
    inner = lm
    if adapted:
        lm = PeftModel.from_pretrained(lm, str(place.folder / "adapter")).eval()
    habits = {"repetition_penalty": 5.0, "min_p": 0.9, "no_repeat_ngram_size": 1, "num_beams": 3}
    said = []
    for own in ({}, habits):
        inner.generation_config = GenerationConfig(**own)
        sampling = Sampling(max_new_tokens=12, temperature=temperature, top_p=1.0)
        said.append(
            generate(lm, [[5, 6], [7]], sampling=sampling, stops=[299], pad=0, batch_size=2, seed=1)
        )
        assert inner.generation_config.to_diff_dict().items() >= own.items()
    assert said[0] == said[1]


def test_drawn_answers_repeat_with_their_seed(place: Place) -> None:
    lm = AutoModelForCausalLM.from_pretrained(place.folder / "tiny").eval()
    sampling = Sampling(max_new_tokens=8, temperature=1.0, top_p=0.95)
    one, again, other = (
        generate(lm, [[5, 6], [7]], sampling=sampling, stops=[2], pad=0, batch_size=2, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_a_baseline_and_its_checkpoint_are_asked_the_same(place: Place) -> None:
    record = place.run(
        "both", checkpoint="adapter", baseline=True, loss=LOSS, socrates=PEOPLE,
        generate={**LOSS, "max_examples": 3, "max_new_tokens": 5},
    )  # fmt: skip
    before, after = (record["results"][name] for name in ("baseline", "checkpoint"))
    assert before["loss"]["loss"] != after["loss"]["loss"]
    assert before["loss"]["tokens"] == after["loss"]["tokens"]
    difference = record["comparison"]["loss"]["difference"]
    assert difference == pytest.approx(after["loss"]["loss"] - before["loss"]["loss"])
    assert record["comparison"]["socrates"]["verdict"] in ("go", "no-go", "inconclusive")
    assert (before["socrates"]["items"], before["socrates"]["cells"]) == (24, 6)
    assert before["socrates"]["uniform"] == after["socrates"]["uniform"]
    assert after["generate"]["examples"] == 3
    assert 0 <= after["generate"]["rouge_l"] <= 1
    for name in ("baseline", "checkpoint"):
        lines = (place.folder / "both" / f"{name}.socrates.jsonl").read_text().splitlines()
        assert len(lines) == 24
        assert set(json.loads(lines[0])) == {"source", "text", "answer", "response"}
    said = command.describe(record)
    assert record["comparison"]["socrates"]["verdict"].upper() in said


def test_an_adapter_is_as_good_as_its_merged_weights(place: Place) -> None:
    found = {
        name: place.run(f"as-{name}", checkpoint=name, baseline=True, loss=LOSS)["results"]
        for name in ("adapter", "merged")
    }
    for which in ("baseline", "checkpoint"):
        losses = [results[which]["loss"]["loss"] for results in found.values()]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    alone = place.run("as-alone", loss=LOSS)["results"]
    assert list(alone) == ["baseline"]
    assert alone["baseline"] == found["adapter"]["baseline"]


def test_an_earlier_baseline_saves_its_second_evaluation(place: Place) -> None:
    earlier = place.run("earlier", socrates=PEOPLE)
    later = place.run("later", checkpoint="adapter", baseline="earlier", socrates=PEOPLE)
    at_once = place.run("at-once", checkpoint="adapter", baseline=True, socrates=PEOPLE)
    assert later["results"]["baseline"] == earlier["results"]["baseline"]
    assert later["results"] == at_once["results"]
    assert later["comparison"] == at_once["comparison"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"socrates": {**PEOPLE, "temperature": 0.7}},
        {"socrates": {**PEOPLE, "max_examples": 9}},
    ],
    ids=["seed", "sampling", "items"],
)
def test_an_earlier_baseline_that_was_asked_otherwise(place: Place, changes: Any) -> None:
    place.run("asked", socrates=PEOPLE)
    given = {"checkpoint": "adapter", "baseline": "asked", "socrates": PEOPLE, **changes}
    with pytest.raises(TrainError, match="was asked other items"):
        place.run("refused", **given)


def test_prompts_too_long_are_named(place: Place) -> None:
    with pytest.raises(TrainError) as caught:
        place.run("refused", socrates=PEOPLE, max_seq_length=30)
    assert len(caught.value.problems) == 20
    assert "people.jsonl: row 1: is " in caught.value.problems[0]
    assert "26 are left of 30" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"messages": chat("a")}, {"x": 1}], "row 2: has none of `messages`, `prompt` and"),
        ([{"messages": [{"role": "assistant", "content": "a"}]}], "row 1: `messages` holds no"),
        (["x"], "row 1: not a mapping"),
        ([], "is empty"),
    ],
)
def test_prompts_that_are_none(place: Place, rows: list[Any], problem: str) -> None:
    jsonl(place.folder / "odd.jsonl", rows)
    with pytest.raises(TrainError, match=problem):
        place.run("refused", generate={"data": "odd.jsonl"})


def test_an_adapter_of_another_model(place: Place) -> None:
    build(place.folder / "wider", [place.folder / "text.txt"], hidden=48, vocabulary=300, layers=2)
    with pytest.raises(TrainError, match=r"checkpoint: .*adapter: does not fit the model"):
        place.run("refused", model="wider", checkpoint="adapter", loss=LOSS)


def test_several_processes_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainError, match="runs in one process"):
        place.run("refused", loss=LOSS)


def test_nothing_left_of_the_examples(place: Place) -> None:
    with pytest.raises(TrainError, match=r"no example of loss\.data has an answer within it"):
        place.run("refused", loss=LOSS, max_seq_length=5)


def test_the_cache_is_the_trainer_s(place: Place) -> None:
    place.run("cached", loss=LOSS)
    assert (place.folder / asked.CACHE).is_dir()


def test_the_command_line(place: Place) -> None:
    record = {"model": "tiny", "output": "told", "loss": {"data": "chat.jsonl"}}
    (place.folder / "eval.json").write_text(json.dumps(record))
    done = subprocess.run(
        [sys.executable, "-m", "remote.trainer", "evaluate", "eval.json"],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loss = json.loads((place.folder / "told" / "metrics.json").read_text())["results"]["baseline"]
    assert f"baseline   loss      loss {loss['loss']['loss']:.4g}" in done.stdout
    assert done.stdout.endswith("wrote told/metrics.json\n")
