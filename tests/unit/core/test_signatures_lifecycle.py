"""What a trainer is doing, by what it prints, through whole made-up logs of each kind."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.signatures.facts import Facts
from orchestrator.core.signatures.lifecycle import Doing, Life, follow
from orchestrator.core.signatures.reader import Line

D = Doing
OPEN_INSTRUCT = [
    ("Collecting torch", D.DEPS),
    ("Successfully installed torch-2.6", D.DEPS),
    ("│   │   push_to_hub=True,", D.DEPS),
    (
        "2026 - INFO - finetune.py:460 - Distributed environment: DistributedType.DEEPSPEED "
        " Backend: nccl",
        D.DEPS,
    ),
    ("Num processes: 8", D.DEPS),
    (
        "Generating train split:  12%|#2  | 110000/939343 [00:00<00:02, 370.53 examples/s]",
        D.TOKENISE,
    ),
    ("Map (num_proc=128):   1%|  | 943/93934 [00:03<02:22, 654.62 examples/s]", D.TOKENISE),
    ("Downloading shards:  25%|##5 | 1/4 [01:00<03:00, 60.0s/it]", D.MODEL_DOWNLOAD),
    ("Detected DeepSpeed ZeRO-3: activating zero.init() for this model", D.MODEL_LOAD),
    ("Loading checkpoint shards: 100%|####| 4/4 [00:00<00:00, 132.72it/s]", D.MODEL_LOAD),
    ("2026 - INFO - dpo.py:1 -   =============before cache logprobs", D.CACHING_REF),
    ("Caching reference logprobs:   7%|7 | 70/1000 [01:00<13:00, 1.2it/s]", D.CACHING_REF),
    ("2026 - INFO - dpo.py:1 -   =============after cache logprobs", D.TRAIN),
    ("2026 - INFO -   ***** Running training *****", D.TRAIN),
    ("2026 - INFO -   Total optimization steps = 844", D.TRAIN),
    ("Output directory exists but no checkpoint found. Starting from scratch.", D.TRAIN),
    ("Step: 1, LR: 0.0, Loss: 0.693", D.TRAIN),
    ("Saving current state to output/epoch_0", D.SAVE),
    ("DeepSpeed Model and Optimizer saved to output dir output/epoch_0/pytorch_model", D.TRAIN),
    ("Removing checkpoint output/epoch_0", D.TRAIN),
    ("Saving current state to output/epoch_1", D.SAVE),
    ("  1%| | 12/844 [01:00<9:00:00, 13.0s/it]", D.TRAIN),
    ("push_to_hub(repo)", D.UPLOAD),
]
TRANSFORMERS = [
    ("Tokenizing train dataset:  10%|# | 10/100 [00:01<00:09, 10 examples/s]", D.TOKENISE),
    ("Loading weights: 100%|####| 10/10 [00:00<00:00]", D.MODEL_LOAD),
    ("  0%|          | 0/40 [00:00<?, ?it/s]", D.MODEL_LOAD),
    (" 10%|#         | 4/40 [00:00<00:00, 36.56it/s]", D.TRAIN),
    ("{'loss': '3.9', 'learning_rate': '1e-05', 'epoch': '0.1'}", D.TRAIN),
    ("***** Running Evaluation *****", D.EVAL),
    (" 50%|#####     | 4/8 [00:00<00:00, 36.56it/s]", D.EVAL),
    ("{'eval_loss': '3.9', 'epoch': '0.1'}", D.TRAIN),
    ("Writing model shards: 100%|####| 1/1 [00:00<00:00, 192.34it/s]", D.SAVE),
    (" 50%|#####     | 20/40 [00:00<00:00, 36.56it/s]", D.TRAIN),
    ("Saving model checkpoint to out/checkpoint-20", D.SAVE),
    ("checkpoint checkpoint-20 is complete at step 20", D.TRAIN),
    ("{'train_runtime': '1.5', 'train_loss': '3.9', 'epoch': '1'}", D.FINALISE),
    ("Upload 2 LFS files: 0%|", D.UPLOAD),
]
VERL = [
    ("Fetching 12 files:   8%|8 | 1/12 [00:10<01:50, 10.0s/it]", D.MODEL_DOWNLOAD),
    ("(TaskRunner pid=1) Total training steps: 2204", D.MODEL_DOWNLOAD),
    (
        "(WorkerDict pid=2) Initializing an LLM engine (v0.8.5) with config: x",
        D.ROLLOUT_ENGINE_START,
    ),
    ("(WorkerDict pid=2) Capturing CUDA graph shapes: 10%|#", D.ROLLOUT_ENGINE_START),
    ("(TaskRunner pid=1) Load from checkpoint folder: /v/global_step_2204", D.ROLLOUT_ENGINE_START),
    ("(TaskRunner pid=1) Setting global step to 2204", D.TRAIN),
    ("(TaskRunner pid=1) step:2205 - actor/grad_norm:0.3", D.TRAIN),
    ("(TaskRunner pid=1) local_global_step_folder: /v/global_step_2300", D.SAVE),
    ("(TaskRunner pid=1) step:2301 - actor/grad_norm:0.3", D.TRAIN),
    ("(TaskRunner pid=1) validation generation end", D.EVAL),
    ("(TaskRunner pid=1) step:2302 - actor/grad_norm:0.3", D.TRAIN),
    ("(TaskRunner pid=1) Final validation metrics: {}", D.FINALISE),
]
OURS = [
    ("***** Running training *****", D.TRAIN),
    ("{'loss': '3.9', 'learning_rate': '1e-05', 'epoch': '0.1'}", D.TRAIN),
    ("finished at step 40", D.DONE),
]
TORCHLLMS = [
    ("[global step 10/500] time=3.1s | loss=1.23 grad_norm=0.9 lr=1e-06", D.TRAIN),
    ("[Validation] Step 10 loss=1.3", D.TRAIN),
    ("Saved checkpoint in 3.2s", D.TRAIN),
    ("Finished training!", D.FINALISE),
]
LOGS = {
    "open-instruct": OPEN_INSTRUCT,
    "transformers": TRANSFORMERS,
    "verl": VERL,
    "ours": OURS,
    "torchllms": TORCHLLMS,
}


def told(*texts: str) -> list[Line]:
    return [Line(text, 10 * n) for n, text in enumerate(texts)]


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_the_phases_of_a_log(log: list[tuple[str, Doing]]) -> None:
    life, found = Life(), []
    for line in told(*(text for text, _ in log)):
        life = follow(life, [line])
        found.append(life.doing)
    assert found == [doing for _, doing in log]
    assert follow(Life(), told(*(text for text, _ in log))) == life


def test_where_a_phase_began_is_kept_and_its_bar_moves() -> None:
    life = follow(
        Life(),
        told(
            "Loading checkpoint shards:   0%| | 0/4 [00:00<?, ?it/s]",
            "Caching reference logprobs:   7%|7 | 70/1000 [01:00<13:00, 1.2it/s]",
            "Caching reference logprobs:   8%|8 | 80/1000 [01:08<13:00, 1.2it/s]",
        ),
    )
    assert (life.doing, life.offset, life.bar) == (D.CACHING_REF, 10, (80, 1000))


FACTS: list[tuple[str, dict[str, Any]]] = [
    ("Resumed from checkpoint: output/step_20", {"resumed_from": "output/step_20"}),
    ("Load from checkpoint folder: /v/global_step_9", {"resumed_from": "/v/global_step_9"}),
    (
        "Resuming training from checkpoint with epoch 1 and global step 50",
        {"resumed_from": "Resuming training from checkpoint", "start_step": 50},
    ),
    (
        "Output directory exists but no checkpoint found. Starting from scratch.",
        {"from_scratch": True},
    ),
    ("Training from scratch", {"from_scratch": True}),
    ("Starting from epoch 1 and step 120", {"start_step": 120}),
    ("Setting global step to 2204", {"start_step": 2204}),
    ("Total training steps: 2204", {"total_steps": 2204}),
    ("  Total optimization steps = 11688", {"total_steps": 11688}),
    ("Distributed environment: DistributedType.NO", {"distributed": "NO", "backend": None}),
    (
        "Distributed environment: DistributedType.DEEPSPEED  Backend: nccl",
        {"distributed": "DEEPSPEED", "backend": "nccl"},
    ),
    ("Num processes: 2", {"processes": 2}),
    ("Detected DeepSpeed ZeRO-3: activating zero.init() for this model", {"zero": True}),
    ("After initializing ZeRO optimizer", {"zero": True}),
    ("DeepSpeedZeRoOffload initialize [end]", {"zero": True}),
    ("Loading reference logprobs cache from /x/6f37.pt", {"has_reference": True}),
    ("=============before cache logprobs", {"has_reference": True}),
    ("WARN: grad_norm is not finite: nan", {"skipped_in_a_row": 1}),
    # fp16 finds its scale so when it begins.
    ("[deepspeed] OVERFLOW! Rank 0 Skipping step.", {"skipped_in_a_row": 0}),
    # No program prints these two, whatever a document says of them.
    ("DeepSpeed ZeRO Stage 3 initialized", {"zero": False}),
    ("NCCL initialized successfully", {"backend": None}),
]


@pytest.mark.parametrize(("text", "facts"), FACTS, ids=[text[:40] for text, _ in FACTS])
def test_facts(text: str, facts: dict[str, Any]) -> None:
    found = follow(Life(), told(text)).facts
    assert {name: getattr(found, name) for name in facts} == facts


def test_skipped_updates_are_counted_until_one_is_made() -> None:
    skip, step = "WARN: grad_norm is not finite: nan", "step:{} - actor/lr:1"
    life = follow(Life(), told(skip, step.format(1), skip, step.format(2)))
    assert life.facts.skipped_in_a_row == 2
    assert follow(life, told(step.format(3))).facts.skipped_in_a_row == 0


def test_nothing_said_is_nothing_known() -> None:
    assert follow(Life(), told("hello")) == Life(Doing.BOOT, None, None, Facts())
