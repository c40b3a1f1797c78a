"""The chat templates of the job files: what is learned under them, and how an evaluation asks."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from data_kit import chat, learned, recipe, tokenizer

from remote.trainer.data.encode import Encoder

pytestmark = pytest.mark.trainer
JOBS = Path(__file__).parents[3] / "jobs"


@pytest.mark.parametrize(
    ("template", "whole"),
    [
        ("mahals/tulu.jinja", "<|user|>\nhi\n<|assistant|>\nyes<eos>"),
        ("socrates/evaluation/plain.jinja", "hiyes<eos>"),
    ],
)
def test_the_answer_and_its_end_are_learned(template: str, whole: str) -> None:
    text = (JOBS / template).read_text()
    made = tokenizer(text)
    encoder = Encoder(recipe(text))
    assert learned(encoder, {"messages": chat("hi", "yes")}, made) == [(whole, ["yes<eos>"])]


def test_an_evaluation_asks_in_plain_text() -> None:
    made = tokenizer((JOBS / "socrates/evaluation/plain.jinja").read_text())
    asked = [{"role": "user", "content": "### Response:\n"}]
    said = made.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert said == "### Response:\n"
