"""Both stages against a loop written out from the paper's algorithm: padded, without adapters,
engines, caches or anything else of the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from gad_place import ARGS, GAD, after, play, rows, warm
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from trainer_place import Place, batches
from transformers import LlamaForCausalLM

pytestmark = pytest.mark.trainer
STEPS, RATE, CLIP, TEMPERATURE = int(ARGS["max_steps"]), float(ARGS["learning_rate"]), 0.2, 0.8
N, LENGTH, ALONE = int(GAD["rollouts"]), int(GAD["max_new_tokens"]), int(GAD["critic_warmup"])
END = "<|end|>"
KEYS = ("loss", "grad_norm", "gad/d_loss", "gad/d_acc", "gad/reward_mean", "gad/critic_grad_norm")


@dataclass
class Oracle:
    """`policy` and `critic` are plain Llamas; `head` reads a score off a hidden state."""

    place: Place
    policy: Any
    critic: Any
    head: Tensor
    reference: Any = None

    def __post_init__(self) -> None:
        self.tokenizer = Tokenizer.from_file(str(self.place.folder / "tiny" / "tokenizer.json"))
        self.end = self.tokenizer.token_to_id(END)
        self.head.requires_grad_()
        judge = [*self.critic.model.parameters(), self.head]
        self.of_policy = torch.optim.AdamW(self.policy.parameters(), lr=RATE, weight_decay=0.0)
        self.of_critic = torch.optim.AdamW(judge, lr=RATE, weight_decay=0.0)
        self.pairs = [self._coded(row) for row in rows(self.place)]

    def _coded(self, row: dict[str, Any]) -> tuple[list[int], list[int]]:
        prompt = f"<|begin|>user:\n{row['content'][0]['content']}{END}\nassistant:\n"
        ids = [self.tokenizer.encode(text, add_special_tokens=False).ids
               for text in (prompt, row["teacher_response"] + END)]  # fmt: skip
        return ids[0], ids[1]

    def answer(self, prompt: list[int], numbers: np.ndarray) -> list[int]:
        ids = list(prompt)
        for number in numbers:
            with torch.no_grad():
                logits = self.policy(torch.tensor([ids])).logits[0, -1].double() / TEMPERATURE
            ids.append(int((logits.softmax(-1).cumsum(-1) < number).sum()))
            if ids[-1] == self.end:
                break
        return ids[len(prompt) :]

    def played(self, step: int, members: list[int]) -> list[list[list[int]]]:
        found = []
        for row in members:
            numbers = np.random.Generator(np.random.PCG64([42, 0, step, row])).random((N, LENGTH))
            found.append([self.answer(self.pairs[row][0], each) for each in numbers])
        return found

    def log_probs(self, model: Any, prompt: list[int], answer: list[int], heat: float) -> Tensor:
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] / heat
        return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]

    def score(self, prompt: list[int], answer: list[int]) -> Tensor:
        states = self.critic.model(torch.tensor([prompt + answer])).last_hidden_state
        return states[0, -1] @ self.head[0]

    def learn_to_judge(self, members: list[int], answers: Any) -> dict[str, float]:
        teacher, student = [], []
        for row, some in zip(members, answers, strict=True):
            prompt, taught = self.pairs[row]
            teacher += [self.score(prompt, taught)] * N
            student += [self.score(prompt, each) for each in some]
        theirs, ours = torch.stack(teacher), torch.stack(student)
        loss = F.softplus(-(theirs - ours)).mean()
        norm = _step(self.of_critic, loss)
        return {
            "gad/d_loss": loss.item(),
            "gad/d_acc": (theirs > ours).float().mean().item(),
            "gad/reward_mean": ours.mean().item(),
            "gad/critic_grad_norm": norm,
        }

    def warmup(self, step: int, members: list[int]) -> dict[str, float]:
        judged = self.learn_to_judge(members, self.played(step, members))
        logs = [self.log_probs(self.policy, *self.pairs[row], 1.0) for row in members]
        loss = -torch.cat(logs).mean()
        norm = _step(self.of_policy, loss) if step >= ALONE else judged["gad/critic_grad_norm"]
        return {"loss": loss.item(), "grad_norm": norm, **judged}

    def adversarial(self, step: int, members: list[int]) -> dict[str, float]:
        answers = self.played(step, members)
        tokens = []
        for row, some in zip(members, answers, strict=True):
            prompt = self.pairs[row][0]
            with torch.no_grad():
                rewards = torch.stack([self.score(prompt, each) for each in some])
                frozen = [self.log_probs(self.reference, prompt, a, TEMPERATURE) for a in some]
            worth = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
            for answer, reference, each in zip(some, frozen, worth, strict=True):
                tokens.append((prompt, answer, reference, each))
        judged = self.learn_to_judge(members, answers)
        losses, divergences = [], []
        for prompt, answer, reference, each in tokens:
            new = self.log_probs(self.policy, prompt, answer, TEMPERATURE)
            losses.append(-each * torch.exp(new - new.detach()))
            divergences.append(torch.exp(reference - new) - (reference - new) - 1)
        kl = torch.cat(divergences).mean()
        loss = torch.cat(losses).mean() + 0.05 * kl
        norm = _step(self.of_policy, loss)
        return {"loss": loss.item(), "grad_norm": norm, "gad/kl": kl.item(), **judged}


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    trained = [each for group in optimizer.param_groups for each in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, CLIP)
    optimizer.step()
    return float(norm)


def _llama(folder: Any) -> Any:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_warmup(trainer_place: Place) -> None:
    tiny = trainer_place.folder / "tiny"
    policy = _llama(tiny)
    head = torch.randn(1, policy.config.hidden_size, generator=torch.Generator().manual_seed(42))
    oracle = Oracle(trainer_place, policy, _llama(tiny), head * 0.02)
    order = batches(40, 4)
    expected = [oracle.warmup(step, next(order)) for step in range(STEPS)]
    out = warm(trainer_place, "full")
    _equal(trainer_place.history(out), expected, KEYS)


def test_adversarial(trainer_place: Place) -> None:
    folder = trainer_place.folder / warm(trainer_place, "full")
    critic = _llama(trainer_place.folder / "tiny")
    learned = load_file(folder / "discriminator.safetensors")
    head = learned.pop("head.weight")
    missing = critic.load_state_dict(
        {name.removeprefix("policy.lm."): value for name, value in learned.items()}, strict=False
    )
    assert missing.missing_keys == ["lm_head.weight"]
    assert not missing.unexpected_keys
    oracle = Oracle(trainer_place, _llama(folder), critic, head, reference=_llama(folder))
    order = batches(40, 4)
    expected = [oracle.adversarial(step, next(order)) for step in range(STEPS)]
    gad = after(trainer_place, "full", kl=0.05)
    found = play(trainer_place, "gad-oracle", gad)
    _equal(found, expected, (*KEYS, "gad/kl"))
    assert expected[0]["gad/kl"] == 0 < expected[-1]["gad/kl"]


def _equal(
    found: list[dict[str, Any]], expected: list[dict[str, float]], keys: tuple[str, ...]
) -> None:
    assert len(found) == len(expected)
    for key in keys:
        ours, theirs = ([record[key] for record in some] for some in (found, expected))
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5), key
