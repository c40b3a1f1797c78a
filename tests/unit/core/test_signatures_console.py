"""Console lines of every trainer that we know, made up in the shape of the real ones."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.core.signatures.console import Console, parse
from orchestrator.core.signatures.reader import Line, Reader
from orchestrator.core.signatures.samples import Sample, merge
from orchestrator.core.signatures.systems import SYSTEMS

HF4 = "{'loss': 2.456, 'grad_norm': 0.85, 'learning_rate': 1e-05, 'epoch': 0.01}"
HF5 = "{'loss': '2.456', 'grad_norm': '0.85', 'learning_rate': '1e-05', 'epoch': '0.01'}"
HF = {"loss": 2.456, "grad_norm": 0.85, "learning_rate": 1e-5, "epoch": 0.01}
RAY = "(TaskRunner pid=123) "
VERL = (
    "step:12 - critic/d_loss:0.61 - critic/d_acc:0.75 - actor/teacher_pg_loss:1.5"
    " - actor/grad_norm:np.float64(0.31) - actor/lr:1e-06 - perf/throughput:812.5"
    " - response_length/clip_ratio:0.02"
)
TORCHLLMS = (
    "[global step 10/500] time=3.1s (25m left) | loss=1.23 grad_norm=0.9 accuracy=0.75 lr=1.0e-06"
    " train_tok=900 total_tok=1,200 | global_ex/s=2.5 global_train_tok/s=350.5"
    " global_total_tok/s=410.0 max_mem_allocated=30.1GB"
)
TITAN = (
    "step: 10  loss:  7.5012  grad_norm:  1.2000  memory: 47.00GiB(59.0%)  tps: 5,762"
    "  tflops: 290.10  mfu: 33.00%"
)
NANOCHAT = (
    "step 00010/21400 (0.05%) | loss: 3.200000 | lrm: 1.00 | dt: 400.00ms | tok/sec: 1,310,000"
    " | bf16_mfu: 45.10 | total time: 1.2m"
)
FACTS: list[tuple[str, str, dict[str, Any]]] = [
    ("transformers", HF4, {"step": None, **HF}),
    ("transformers", HF5, {"step": None, **HF}),
    (
        "transformers",
        "{'loss': '1.1', 'learning_rate': '2e-05', 'epoch': '1'}",
        {"loss": 1.1, "grad_norm": None, "learning_rate": 2e-5, "epoch": 1.0},
    ),
    (
        "transformers",
        "{'loss': '0', 'grad_norm': 'nan', 'learning_rate': '0', 'epoch': '0.1'}",
        {"loss": 0.0, "grad_norm": math.nan, "learning_rate": 0.0},
    ),
    (
        "transformers",
        "{'loss': 'inf', 'grad_norm': 1e8, 'learning_rate': 1e-5, 'epoch': 0.1}",
        {"loss": math.inf, "grad_norm": 1e8},
    ),
    (
        "transformers",
        "{'loss': 0.69, 'rewards/chosen': -0.05, 'rewards/accuracies': 0.5, 'num_tokens': 900.0}",
        {"loss": 0.69, "tokens": 900.0, "rewards/chosen": -0.05, "rewards/accuracies": 0.5},
    ),
    (
        "transformers",
        "{'eval_loss': '2.1', 'eval_runtime': '1.5', 'epoch': '0.5'}",
        {"loss": None, "eval_loss": 2.1, "epoch": 0.5},
    ),
    (
        "transformers",
        "{'train_runtime': '10.5', 'train_loss': '1.9', 'epoch': '1'}",
        {"loss": None, "train_runtime": 10.5, "train_loss": 1.9},
    ),
    (
        "open-instruct",
        "2026-01-02 03:04:05 - INFO - finetune.py:892 -   Step: 10, LR: 4.5e-06, Loss: 1.19,"
        " TPS: 6650.1",
        {"step": 10, "loss": 1.19, "learning_rate": 4.5e-6, "tokens_per_s": 6650.1},
    ),
    (
        "open-instruct",
        "Step: 11, LR: 4.5e-06, Loss: 1.2, Aux Loss: 0.1, TPS: 6650.1",
        {"step": 11, "loss": 1.2, "tokens_per_s": 6650.1},
    ),
    (
        "open-instruct",
        "Step: 844, LR: 0.0, Loss: 0.245",
        {"step": 844, "loss": 0.245, "learning_rate": 0.0, "tokens_per_s": None},
    ),
    ("open-instruct", "Step: 9, LR: 1e-06, Loss: nan", {"step": 9, "loss": math.nan}),
    (
        "verl",
        RAY + VERL,
        {
            "step": 12,
            "loss": 1.5,
            "grad_norm": 0.31,
            "learning_rate": 1e-6,
            "tokens_per_s": 812.5,
            "critic/d_acc": 0.75,
            "response_length/clip_ratio": 0.02,
        },
    ),
    (
        "verl",
        "step:0 - val-aux/teacher/rouge_l:0.21 - val-core/x/reward/mean@1:0.3",
        {"step": 0, "loss": None, "val-aux/teacher/rouge_l": 0.21, "val-core/x/reward/mean@1": 0.3},
    ),
    (
        "verl",
        "step:7 - actor/pg_loss:nan - actor/grad_norm:inf",
        {"step": 7, "loss": None, "actor/pg_loss": math.nan, "grad_norm": math.inf},
    ),
    (
        "torchllms",
        "2026-01-02 03:04:05.1 | INFO | x:y:1 - " + TORCHLLMS,
        {
            "step": 10,
            "max_steps": 500,
            "loss": 1.23,
            "grad_norm": 0.9,
            "learning_rate": 1e-6,
            "tokens": 1200.0,
            "tokens_per_s": 350.5,
            "accuracy": 0.75,
        },
    ),
    ("torchllms", "[Validation] Step 10 loss=1.31", {"step": 10, "loss": None, "eval_loss": 1.31}),
    (
        "torchtitan",
        TITAN,
        {"step": 10, "loss": 7.5012, "grad_norm": 1.2, "tokens_per_s": 5762.0, "mfu": 33.0},
    ),
    (
        "torchtitan",
        "step:  1  loss: nan  memory:  1.0GiB(1%)  tps: 10  tflops: 1  mfu: 0.10%",
        {"step": 1, "loss": math.nan, "grad_norm": None, "tokens_per_s": 10.0},
    ),
    (
        "torchtune",
        "Step 10 | loss:1.2 lr:2e-05 tokens_per_second_per_gpu:512.5 grad_norm:0.8",
        {
            "step": 10,
            "loss": 1.2,
            "learning_rate": 2e-5,
            "tokens_per_s": 512.5,
            "grad_norm": 0.8,
        },
    ),
    (
        "nanochat",
        NANOCHAT,
        {"step": 10, "max_steps": 21400, "loss": 3.2, "tokens_per_s": 1_310_000.0, "mfu": 45.1},
    ),
    (
        "deepspeed",
        "[2026-01-02 03:04:05,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, skipped=2,"
        " lr=[1e-05, 1e-05], mom=[(0.9, 0.999)]",
        {"step": 10, "loss": None, "learning_rate": 1e-5, "skipped": 2.0},
    ),
    ("generic", "Step 10: loss=2.456", {"step": 10, "loss": 2.456}),
    (
        "generic",
        "step: 10 loss = 2.45, grad_norm: 0.85",
        {"step": 10, "loss": 2.45, "grad_norm": 0.85},
    ),
    ("generic", "Step 3: loss: nan", {"step": 3, "loss": math.nan}),
]


def lines(*texts: str) -> list[Line]:
    return [Line(text, 100 * n) for n, text in enumerate(texts)]


def value(sample: Sample, name: str) -> Any:
    return getattr(sample, name) if name in ("step", "max_steps") else sample.get(name)


@pytest.mark.parametrize(
    ("source", "text", "told"), FACTS, ids=[f"{n}-{row[0]}" for n, row in enumerate(FACTS)]
)
def test_every_line_of_the_table(source: str, text: str, told: dict[str, Any]) -> None:
    sample = parse(Line(text, 7))
    assert sample is not None
    assert (sample.source, sample.offset) == (source, 7)
    found = {name: value(sample, name) for name in told}
    assert repr(found) == repr(told)  # by repr, in which one NaN is as another


def test_every_system_is_tried() -> None:
    assert {system.name for system in SYSTEMS} == {row[0] for row in FACTS}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Step 10 of the recipe: preheat",
        "loading configuration {'hidden_size': 4096, 'loss_type': 'sft'}",
        "Epoch 1: average loss was good",
        "Loading checkpoint shards: 100%|##| 4/4 [00:00<00:00, 132.72it/s]",
        "step:abc - actor/lr:1",
        "{'loss': 'not a number'}",
        "Step: 10, LR: none, Loss: 1.0",
    ],
)
def test_what_tells_no_step_is_no_sample(text: str) -> None:
    assert parse(Line(text, 0)) is None


@pytest.mark.parametrize(
    "text",
    [
        "1" * 60_000,
        "{'loss': " + "1" * 60_000,
        "{'loss': 1, " * 5_000,
        "step:1 - a:" + "9," * 30_000,
        "0%|" * 20_000,
        " 1%| | 1/2 [" + "it/s" * 15_000,
        "Step 1 | " * 6_000,
        "Step 1: loss: 1 " * 4_000,
        "[global step 1/2] loss= " * 2_500,
        "step 1/2 | loss:" * 4_000,
    ],
    ids=range(10),
)
def test_a_hostile_line_is_read_in_no_time(text: str) -> None:
    began = time.process_time()
    Console().feed([Line(text, 0)])
    assert time.process_time() - began < 2


def test_a_metric_glued_behind_a_bar_is_found_with_its_time() -> None:
    text = (
        " 12%|#2  | 1456/11688 [2:00:32<14:37:28,  5.15s/it]2026-01-29 22:54:22 - INFO -"
        "   Step: 1456, LR: 4.5e-06, Loss: 1.13, TPS: 2160.5"
    )
    (sample,) = Console().feed(lines(text))
    assert sample.step == 1456
    assert sample.at == datetime(2026, 1, 29, 22, 54, 22, tzinfo=UTC)
    assert sample.max_steps == 11688


# tqdm prints at most ten times a second, so the bar before a line may be some steps behind it; it
# is drawn again after the line, and then it is right.
def test_the_bar_after_a_line_has_its_step() -> None:
    text = (
        "\r  0%|          | 0/40 [00:00<?, ?it/s]\r 10%|#         | 4/40 [00:00<00:00, 36.5it/s]"
        "\r          \r" + HF5 + "\n\r 12%|#2        | 5/40 [00:00<00:00, 36.5it/s]"
        "\r 20%|##        | 8/40 [00:00<00:00, 37.5it/s]\r       \r" + HF5 + "\n"
        "\r 25%|##5       | 10/40 [00:00<00:00, 37.5it/s]\n"
        "\r  0%|          | 0/8 [00:00<?, ?it/s]\x1b[A\r    \r\n"
        "\r      \r\x1b[A{'eval_loss': '3.9', 'eval_runtime': '0.1', 'epoch': '0.3'}\n"
        "\r 25%|##5       | 10/40 [00:00<00:00, 37.5it/s]\n"
        "\r100%|##########| 8/8 [00:00<00:00, 142.0it/s]\n"
        "\r 100%|####| 40/40 [00:01<00:00, 22.77it/s]\r  \r"
        "{'train_runtime': '1.8', 'train_loss': '3.9', 'epoch': '1.25'}\n"
        "\r100%|##########| 40/40 [00:01<00:00, 22.38it/s]\n"
    )
    reader, console = Reader(), Console()
    samples = console.feed(reader.feed(text.encode())) + console.end()
    assert [(each.step, each.loss) for each in samples] == [
        (5, 2.456),
        (10, 2.456),
        (10, None),
        (40, None),
    ]
    assert {each.max_steps for each in samples} == {40}


def test_the_bar_of_an_evaluation_is_no_step() -> None:
    texts = ("  0%| | 0/40 [00:00<?, ?it/s]", HF4, " 37%| | 3/8 [00:01<00:01, 3.5it/s]")
    samples = Console().feed(lines(*texts, " 12%| | 5/40 [00:01<00:09, 3.5it/s]"))
    assert [each.step for each in samples] == [5]


def test_a_bar_that_is_full_before_training_counts_other_things() -> None:
    """Rows that are tokenised: a run of which only its bars tell the step had step 5000 for ever,
    and a phase that ends at step 100 was over."""
    rows = ("  0%| | 0/5000 [00:00<?, ?it/s]", "100%|#| 5000/5000 [00:09<00:00, 555it/s]")
    train = ("  0%| | 0/40 [00:00<?, ?it/s]", HF4, " 12%| | 5/40 [00:01<00:09, 3.5it/s]")
    evaluate = ("100%|#| 8/8 [00:01<00:00, 8.0it/s]", HF4, " 25%| | 10/40 [00:02<00:09, 3.5it/s]")
    samples = Console().feed(lines(*rows, *train, *evaluate))
    assert [(each.step, each.max_steps) for each in samples] == [(5, 40), (10, 40)]


def test_steps_of_somebody_else_are_not_the_trainers() -> None:
    """An evaluation within training that counts from 1 again would be a new attempt each time,
    and take the curve with it."""
    step, other = "Step: {}, LR: 1e-06, Loss: 0.6", "Step {}: loss=9.9"
    texts = [step.format(1), step.format(2), other.format(1), other.format(2), step.format(3)]
    assert [(each.step, each.loss) for each in merge(Console().feed(lines(*texts)))] == [
        (1, 0.6),
        (2, 0.6),
        (3, 0.6),
    ]


def test_without_a_bar_after_it_the_bar_before_counts() -> None:
    console = Console()
    assert console.feed(lines(" 10%|#   | 4/40 [00:00<00:01, 3.5it/s]", HF4)) == []
    assert [each.step for each in console.end()] == [4]


def test_without_any_bar_a_line_still_tells_its_loss() -> None:
    console = Console()
    console.feed(lines(HF4))
    assert [(each.step, each.loss) for each in console.end()] == [(None, 2.456)]


def test_lines_in_turn_do_not_share_a_bar() -> None:
    console = Console()
    found = console.feed(lines(" 2%| | 1/40 [00:01<00:01, 3.5it/s]", HF4, HF4))
    found += console.feed(lines(" 7%| | 3/40 [00:01<00:01, 3.5it/s]"))
    assert [each.step for each in found] == [1, 3]


def test_a_step_that_every_rank_prints_counts_once() -> None:
    text = "Step: {}, LR: 1e-06, Loss: 0.6"
    order = [1, 1, 2, 3, 2, 3, 4, 4]
    samples = Console().feed(lines(*(text.format(step) for step in order)))
    assert [each.step for each in samples] == [1, 2, 3, 4]


def test_a_validation_and_a_step_of_the_same_number_both_count() -> None:
    samples = Console().feed(
        lines("step:5 - val-core/rouge:0.2", VERL.replace("step:12", "step:5"))
    )
    assert [each.step for each in samples] == [5, 5]


@pytest.mark.parametrize(
    "between",
    [(), ("***** Running training *****",), ("Resuming", "  Total optimization steps = 9")],
    ids=["nothing", "begins", "words"],
)
def test_a_new_attempt_may_print_steps_again(between: tuple[str, ...]) -> None:
    text = "Step: {}, LR: 1e-06, Loss: 0.6"
    first = [text.format(step) for step in range(1, 11)]
    again = [text.format(step) for step in range(5, 12)]
    samples = Console().feed(lines(*first, *between, *again))
    assert [each.step for each in samples] == [*range(1, 11), *range(5, 12)]


def test_an_attempt_that_is_announced_may_begin_one_step_back() -> None:
    console, text = Console(), "Step: {}, LR: 1e-06, Loss: 0.6"
    console.feed(lines(text.format(9), text.format(10)))
    console.attempt()
    assert [each.step for each in console.feed(lines(text.format(10)))] == [10]


def test_missing_steps_stay_missing() -> None:
    samples = Console().feed(lines("Step 10: loss=2", "Step 30: loss=1"))
    assert [each.step for each in samples] == [10, 30]


def test_the_last_step_is_told_by_the_trainer() -> None:
    console = Console()
    console.feed(lines("2026 - INFO -   Total optimization steps = 11688"))
    assert console.max_steps == 11688
