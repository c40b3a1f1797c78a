"""What a trainer is doing, from what it prints: silence means one thing while tokenising and
another while training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.signatures.facts import STEP, Facts, learn
from orchestrator.core.signatures.reader import Line


class Doing(StrEnum):
    """In the order of a run; train, save and eval take turns."""

    BOOT = "boot"
    DEPS = "deps"
    MODEL_DOWNLOAD = "model_download"
    TOKENISE = "tokenise"
    MODEL_LOAD = "model_load"
    CACHING_REF = "caching_ref"
    ROLLOUT_ENGINE_START = "rollout_engine_start"
    TRAIN = "train"
    SAVE = "save"
    EVAL = "eval"
    FINALISE = "finalise"
    UPLOAD = "upload"
    DONE = "done"


@dataclass(frozen=True)
class Mark:
    """A pattern that says what begins. `after` limits it to what may come before it."""

    doing: Doing
    pattern: re.Pattern[str]
    after: frozenset[Doing] | None = None


@dataclass(frozen=True)
class Life:
    """Where a trainer is. `offset`: the line that said so. `bar` is how far the phase's own
    progress bar came; it moves while the phase does."""

    doing: Doing = Doing.BOOT
    offset: int | None = None
    bar: tuple[int, int] | None = None
    facts: Facts = field(default_factory=Facts)


_TRAINING = frozenset({Doing.TRAIN, Doing.SAVE, Doing.EVAL})
_BEFORE = frozenset(Doing) - _TRAINING - {Doing.FINALISE, Doing.UPLOAD, Doing.DONE}


def _mark(doing: Doing, *words: str, after: frozenset[Doing] | None = None) -> Mark:
    return Mark(doing, re.compile("|".join(words)), after)


# The first that fits a line counts. Words of programs, not of the users' documents.
MARKS = (
    _mark(Doing.TRAIN, r"=after cache logprobs", r"Loading reference logprobs cache from"),
    _mark(Doing.CACHING_REF, r"Caching reference logprobs", r"=before cache logprobs"),
    _mark(
        Doing.ROLLOUT_ENGINE_START,
        r"Initializing (?:a V\d )?(?:an )?LLM engine",
        r"Capturing CUDA graph",
        r"Loading safetensors checkpoint shards",
        after=_BEFORE,
    ),
    _mark(
        Doing.TRAIN,
        r"\*{5} Running training",
        r"Training from scratch",
        r"Setting global step to",
        after=_BEFORE,
    ),
    _mark(
        Doing.FINALISE,
        r"'train_runtime': ",
        r"Training completed\. Do not forget",
        r"Finished training!",
        r"Final validation metrics",
        after=_TRAINING,
    ),
    _mark(
        Doing.UPLOAD,
        r"Uploading (?:model|\.\.\.|files)",
        r"push_to_hub",
        r"Upload \d+ LFS files",
        after=frozenset({*_TRAINING, Doing.FINALISE}),
    ),
    _mark(
        Doing.SAVE,
        r"Saving model checkpoint to ",
        r"Saving current state to ",
        r"local_global_step_folder: ",
        r"Writing model shards:",
        r"Saving full model weights",
        after=_TRAINING,
    ),
    _mark(
        Doing.TRAIN,
        r"Saved checkpoint in [\d.]+s",
        r"DeepSpeed Model and Optimizer saved to output dir",
        r"checkpoint \S+ is complete at step",
        r"Removing checkpoint",
        r"Remaining files:",
        r"\{'eval_loss': ",
        r"\[Validation\] Step \d+ loss=",
        after=_TRAINING,
    ),
    _mark(
        Doing.EVAL,
        r"\*{5} Running (?:Evaluation|Prediction)",
        r"validation generation (?:start|end)",
        after=_TRAINING,
    ),
    _mark(
        Doing.DEPS,
        r"^Collecting \S+",
        r"^Installing collected packages:",
        r"^Successfully installed ",
        r"^(?:Resolved|Prepared|Installed) \d+ packages? in ",
        after=frozenset({Doing.BOOT, Doing.DEPS}),
    ),
    _mark(
        Doing.MODEL_DOWNLOAD,
        r"Downloading shards:",
        r"Fetching \d+ files:",
        r"^(?:model|pytorch_model)-\d+-of-\d+\.\w+:\s+\d+%",
        r"^model\.safetensors:\s+\d+%",
        after=_BEFORE,
    ),
    _mark(
        Doing.TOKENISE,
        r"^(?:Map|Filter)(?: \(num_proc=\d+\))?:\s+\d+%",
        r"^(?:Tokenizing|Packing|Truncating|Applying chat template|Adding EOS|Extracting prompt)\b",
        r"^(?:Running tokenizer on|Converting) .{0,60}dataset",
        r"^Generating \w+ split:",
        r"^Adding dataset source field",
        r"transforming datasets\.\.\.",
        after=_BEFORE,
    ),
    _mark(
        Doing.MODEL_LOAD,
        r"Loading checkpoint shards:",
        r"^Loading weights:",
        r"loading weights file ",
        r"Instantiating \w+ model under",
        r"Detected DeepSpeed ZeRO-3: activating zero\.init",
        r"DeepSpeedZeRoOffload initialize",
        r"After initializing ZeRO optimizer",
        after=_BEFORE,
    ),
    _mark(Doing.DONE, r"^finished at step \d+", after=frozenset({*_TRAINING, Doing.FINALISE})),
)
_TRAINING_BAR = re.compile(
    r"^\s*\d{1,3}%\|[^|]{0,300}\|\s*[1-9]\d{0,14}/\d{1,15} \[[^\]]{0,60}(?:it/s|s/it)"
)
_BAR = re.compile(r"\d{1,3}%\|[^|]{0,300}\|\s*(\d{1,15})/(\d{1,15}) ")


def follow(life: Life, lines: Iterable[Line]) -> Life:
    """`life` after these lines; pure, and the same whether they come at once or one by one."""
    for line in lines:
        life = _after(life, line)
    return life


def _after(life: Life, line: Line) -> Life:
    facts = learn(life.facts, line.text)
    doing = _doing(life.doing, line.text)
    bar = _BAR.search(line.text)
    changed = doing is not life.doing
    moved = (int(bar[1]), int(bar[2])) if bar else (None if changed else life.bar)
    offset = line.offset if changed else life.offset
    return Life(doing, offset, moved, facts)


def _doing(now: Doing, text: str) -> Doing:
    for mark in MARKS:
        if (mark.after is None or now in mark.after) and mark.pattern.search(text):
            return mark.doing
    if now in _BEFORE | _TRAINING and STEP.search(text):
        return Doing.TRAIN
    # An evaluation has a bar of the same looks: only its own end ends it.
    if now in _BEFORE | {Doing.SAVE} and _TRAINING_BAR.match(text):
        return Doing.TRAIN
    return now
