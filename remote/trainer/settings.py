"""What a training run is told, checked as a whole before anything heavy is imported.

Standard library only: a mistake in the file is reported in a tenth of a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from remote.trainer import args as arguments
from remote.trainer import settings_gad, zero
from remote.trainer.args import EIGHT_BIT, Args
from remote.trainer.problems import Problems, TrainError
from remote.trainer.settings_gad import Gad

METHODS = ("sft", "dpo", "simpo", "gad")
REDUCTIONS = ("tokens", "sequences")
KEYS = (
    *("method", "model", "data", "template", "lora", "qlora", "full", "deepspeed"),
    *("max_seq_length", "packing", "args", "evaluate", "loss_reduction", "dpo", "simpo", "gad"),
)
# Full training and adapters; a rate that suits the one is ten times off for the other.
LEARNING_RATES = {
    "sft": (2e-5, 2e-4),
    "dpo": (5e-7, 5e-6),
    "simpo": (5e-7, 5e-6),
    "gad": (1e-6, 1e-5),
}


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters: `alpha / r` scales the update; `four_bit` quantises what they adapt."""

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("all-linear",)
    modules_to_save: tuple[str, ...] = ()
    four_bit: bool = False


@dataclass(frozen=True)
class Dpo:
    """`norm` takes means over tokens instead of sums (Tulu 3's dpo_norm; beta 5 there)."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    norm: bool = False


@dataclass(frozen=True)
class Simpo:
    beta: float = 2.0
    gamma_beta_ratio: float = 0.5


@dataclass(frozen=True)
class Evaluation:
    """Files to evaluate on; `every` steps and at most `max_examples`, when given."""

    files: tuple[str, ...]
    every: int | None = None
    max_examples: int | None = None


@dataclass(frozen=True)
class Settings:
    """A `train:` mapping with its defaults. `lora` is None when all weights are trained."""

    method: str
    model: str
    train_files: tuple[str, ...]
    evaluation: Evaluation | None = None
    template: Path | None = None
    lora: Lora | None = None
    deepspeed: Mapping[str, Any] | None = None
    max_seq_length: int = 1024
    packing: bool = False
    loss_reduction: str = "tokens"
    args: Args = field(default_factory=Args)
    dpo: Dpo = field(default_factory=Dpo)
    simpo: Simpo = field(default_factory=Simpo)
    gad: Gad = field(default_factory=Gad)

    @property
    def engine_casts(self) -> bool:
        """Whether DeepSpeed keeps the weights in half precision, with masters of its own."""
        return self.deepspeed is not None and zero.casts(self.deepspeed, self.args)

    @property
    def learning_rate(self) -> float:
        """The peak: what was asked for, else what suits the method."""
        if self.args.learning_rate is not None:
            return self.args.learning_rate
        return LEARNING_RATES[self.method][self.lora is not None]


def load(path: Path) -> Settings:
    """Read a JSON file that holds a `train:` mapping. Raises TrainError with every problem."""
    return parse(_read_json(path, str(path)))


def parse(record: Any) -> Settings:
    """Check a `train:` mapping and return it. Raises TrainError with every problem found."""
    problems = Problems()
    if not isinstance(record, dict):
        raise TrainError(["train: must be a mapping"])
    settings = _read(record, problems, here=True)
    problems.raise_if_any()
    return settings


def check(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Every problem of a `train:` mapping that is one on any machine: the files that it names are
    not looked at. A job file is held against this before anything is rented."""
    problems = Problems()
    _read(record, problems, here=False)
    return problems.found


def _read(record: Mapping[str, Any], problems: Problems, *, here: bool) -> Settings:
    """`here`: the files that the mapping names are on this machine."""
    problems.unknown(record, KEYS, "")
    settings = Settings(
        method=_method(record, problems),
        model=problems.text(record, "model", required=True) or "",
        train_files=problems.texts(record, "data", required=True),
        evaluation=_evaluate(record, problems),
        template=_template(record, problems, here=here),
        lora=_lora(record, problems),
        deepspeed=_deepspeed(record.get("deepspeed"), problems, here=here),
        max_seq_length=problems.whole(record, "max_seq_length") or 1024,
        packing=problems.flag(record, "packing"),
        loss_reduction=_reduction(record, problems),
        args=_args(record, problems),
        dpo=_dpo(problems.mapping(record, "dpo"), problems),
        simpo=_simpo(problems.mapping(record, "simpo"), problems),
        gad=settings_gad.parse(problems.mapping(record, "gad"), problems),
    )
    _check_together(record, settings, problems)
    return settings


def _method(record: Mapping[str, Any], problems: Problems) -> str:
    method = record.get("method")
    if method in METHODS:
        return str(method)
    if method is None:
        problems.add("method: is missing")
        return "sft"
    problems.add(f"method: must be one of {', '.join(METHODS)}, not {method!r}")
    return "sft"


def _args(record: Mapping[str, Any], problems: Problems) -> Args:
    given = problems.mapping(record, "args")
    args = arguments.parse(given, problems)
    if record.get("method") == "gad" and "max_grad_norm" not in given:
        return replace(args, max_grad_norm=settings_gad.MAX_GRAD_NORM)
    return args


def _reduction(record: Mapping[str, Any], problems: Problems) -> str:
    reduction = record.get("loss_reduction") or "tokens"
    if reduction in REDUCTIONS:
        return str(reduction)
    problems.add(f"loss_reduction: must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
    return "tokens"


def _dpo(given: Mapping[str, Any], problems: Problems) -> Dpo:
    problems.unknown(given, ("beta", "label_smoothing", "norm"), "dpo.")
    smoothing = problems.number(given, "label_smoothing", "dpo.", default=0.0)
    if not 0 <= smoothing < 0.5:
        problems.add("dpo.label_smoothing: must be at least 0 and less than 0.5")
    return Dpo(
        beta=_positive(given, "beta", "dpo.", problems, default=Dpo.beta),
        label_smoothing=smoothing,
        norm=problems.flag(given, "norm", "dpo."),
    )


def _simpo(given: Mapping[str, Any], problems: Problems) -> Simpo:
    problems.unknown(given, ("beta", "gamma_beta_ratio"), "simpo.")
    ratio = problems.number(given, "gamma_beta_ratio", "simpo.", default=Simpo.gamma_beta_ratio)
    if ratio < 0:
        problems.add("simpo.gamma_beta_ratio: must not be negative")
    return Simpo(_positive(given, "beta", "simpo.", problems, default=Simpo.beta), ratio)


def _positive(
    given: Mapping[str, Any], key: str, prefix: str, problems: Problems, *, default: float
) -> float:
    value = problems.number(given, key, prefix, default=default)
    if value <= 0:
        problems.add(f"{prefix}{key}: must be more than 0")
    return value


def _check_together(record: Mapping[str, Any], settings: Settings, problems: Problems) -> None:
    """What is right by itself and wrong with the rest."""
    if record.get("method") in METHODS:
        _check_method(record, settings, problems)
    if settings.args.fp16 and settings.deepspeed is None:
        problems.add("args.fp16: needs deepspeed, which scales the loss; or say bf16")
    if settings.deepspeed is not None:
        problems.extend(zero.problems(settings.deepspeed, settings.args))
        _check_eight_bit(settings, problems)


def _check_method(record: Mapping[str, Any], settings: Settings, problems: Problems) -> None:
    for key in ("dpo", "simpo", "gad"):
        if record.get(key) is not None and key != settings.method:
            problems.add(f"{key}: is for method {key}; the method is {settings.method}")
    if settings.packing and settings.method != "sft":
        problems.add("packing: only for sft; nothing is padded in the other methods anyway")
    if settings.loss_reduction != "tokens" and settings.method != "sft":
        problems.add("loss_reduction: only for sft; preferences are a mean over pairs")


def _check_eight_bit(settings: Settings, problems: Problems) -> None:
    if settings.lora is not None and settings.lora.four_bit:
        problems.add(
            "qlora: 4-bit weights cannot be sharded by DeepSpeed; leave `deepspeed` out (several"
            " GPUs then share the batch), or say lora: with the same values"
        )
    if settings.args.optim in EIGHT_BIT:
        problems.add(
            f"args.optim: {settings.args.optim} cannot be sharded by DeepSpeed; say adamw_torch"
            " (ZeRO shards its state), or leave `deepspeed` out on one GPU"
        )


def _evaluate(record: Mapping[str, Any], problems: Problems) -> Evaluation | None:
    given = problems.mapping(record, "evaluate")
    if not isinstance(record.get("evaluate"), dict):
        return None
    problems.unknown(given, ("data", "every", "max_examples"), "evaluate.")
    return Evaluation(
        files=problems.texts(given, "data", "evaluate.", required=True),
        every=problems.whole(given, "every", "evaluate."),
        max_examples=problems.whole(given, "max_examples", "evaluate."),
    )


def _template(record: Mapping[str, Any], problems: Problems, *, here: bool) -> Path | None:
    name = problems.text(record, "template")
    if name is None:
        return None
    if here and not Path(name).is_file():
        problems.add(f"template: {name} is not a file")
    return Path(name)


def _lora(record: Mapping[str, Any], problems: Problems) -> Lora | None:
    full = problems.flag(record, "full")
    asked = [key for key in ("lora", "qlora") if record.get(key) not in (None, False)]
    forms = [*asked, *(["full"] if full else [])]
    if len(forms) > 1:
        problems.add(f"{forms[-1]}: {' and '.join(forms)} exclude each other; keep one")
    if not forms:
        problems.add("lora: say what is trained: lora: true, qlora: true or full: true")
    if not asked:
        return None
    key = asked[-1]
    given = {} if record[key] is True else record[key]
    if not isinstance(given, dict):
        problems.add(f"{key}: must be true or a mapping")
        return None
    return _adapters(given, key, problems)


def _adapters(given: Mapping[str, Any], key: str, problems: Problems) -> Lora:
    prefix = f"{key}."
    known = ("r", "rank", "alpha", "dropout", "target_modules", "modules_to_save")
    problems.unknown(given, known, prefix)
    if "r" in given and "rank" in given:
        problems.add(f"{prefix}rank: r and rank are the same thing; give one")
    rank = problems.whole(given, "r" if "r" in given else "rank", prefix)
    dropout = problems.number(given, "dropout", prefix, default=0.0)
    if not 0 <= dropout < 1:
        problems.add(f"{prefix}dropout: must be at least 0 and less than 1")
    return Lora(
        r=rank or Lora.r,
        alpha=_positive(given, "alpha", prefix, problems, default=Lora.alpha),
        dropout=dropout,
        target_modules=problems.texts(given, "target_modules", prefix) or Lora.target_modules,
        modules_to_save=problems.texts(given, "modules_to_save", prefix),
        four_bit=key == "qlora",
    )


def _deepspeed(given: Any, problems: Problems, *, here: bool) -> Mapping[str, Any] | None:
    if given is None or isinstance(given, dict):
        return given
    if not isinstance(given, str):
        problems.add("deepspeed: must be a path or a mapping")
        return None
    if not here:
        return {}
    try:
        config = _read_json(Path(given), f"deepspeed: {given}")
    except TrainError as error:
        problems.extend(error.problems)
        return None
    if not isinstance(config, dict):
        problems.add(f"deepspeed: {given} must hold a JSON object")
        return None
    return config


def _read_json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError([f"{what}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        raise TrainError([f"{what}: is not JSON: {error}"]) from error
