"""An evaluation from top to bottom: read, ask, measure, compare, write."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from remote.trainer.evaluate import asked, socrates
from remote.trainer.evaluate.asked import Asked
from remote.trainer.evaluate.generate import generate
from remote.trainer.evaluate.likelihood import likelihood
from remote.trainer.evaluate.models import BASELINE, CHECKPOINT, subjects, tokenizer_of
from remote.trainer.evaluate.overlap import rouge_l
from remote.trainer.evaluate.settings import Evaluation, Sampling
from remote.trainer.model import load_config, load_tokenizer
from remote.trainer.problems import TrainError

VERSION = 1
METRICS = "metrics.json"


def evaluate(settings: Evaluation) -> dict[str, Any]:
    """Evaluate, write `metrics.json` and the answers below `settings.output`, return the former.

    Raises TrainError, before a model is loaded when the data are what is wrong.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainError(["evaluate: runs in one process; start it without a launcher"])
    disable_progress_bar()
    tokenizer = load_tokenizer(tokenizer_of(settings), settings.template)
    config = load_config(settings.model, tokenizer)
    what = asked.read(
        settings,
        tokenizer,
        vocabulary=int(config.vocab_size),
        positions=getattr(config, "max_position_embeddings", None),
    )
    earlier = _earlier(settings, what)
    results: dict[str, Any] = {BASELINE: earlier["results"][BASELINE]} if earlier else {}
    settings.output.mkdir(parents=True, exist_ok=True)
    for name, lm in subjects(settings):
        results[name] = _measured(lm, name, settings, what, tokenizer)
    record = {
        "v": VERSION,
        "at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model": settings.model,
        "checkpoint": str(settings.checkpoint) if settings.checkpoint else None,
        "asked": what.same,
        "results": results,
        "comparison": _compared(results, settings, what),
    }
    _write(settings.output / METRICS, record)
    return record


def describe(record: Mapping[str, Any]) -> str:
    """A few lines for a person."""
    lines = []
    for name, tasks in record["results"].items():
        for task, values in tasks.items():
            shown = ", ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, float))
            lines.append(f"{name:<10} {task:<9} {shown}")
    verdict = record["comparison"].get("socrates")
    if verdict:
        gain, low = verdict["improvement"], verdict["improvement_low"]
        lines.append(f"{verdict['verdict'].upper()}: improvement {gain}, at least {low} (90 %)")
        lines += [
            f"  {rule['verdict']:<12} {rule['rule']}: {rule['value']} (needed {rule['needed']})"
            for rule in verdict["rules"]
        ]
    return "\n".join(lines)


def _earlier(settings: Evaluation, what: Asked) -> Any:
    """An earlier evaluation of the baseline. Raises TrainError when it was asked other things."""
    if not isinstance(settings.baseline, Path):
        return None
    path = settings.baseline / METRICS
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = record["v"] == VERSION and isinstance(record["results"][BASELINE], dict)
        same = record["asked"] == what.same
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError([f"baseline: {path}: is no evaluation of a baseline: {error}"]) from error
    if not known or not same:
        raise TrainError(
            [
                f"baseline: {path}: was asked other items, in another way or with another seed, so"
                " the two cannot be compared; evaluate it again, or say baseline: true"
            ]
        )
    return record


def _measured(
    lm: Any, name: str, settings: Evaluation, what: Asked, tokenizer: Any
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if what.store is not None:
        results["loss"] = likelihood(lm, what.store, batch_size=settings.batch_size)
    if settings.generate is not None:
        said = _said(lm, what.prompt_ids, settings.generate.sampling, settings, what)
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in said]
        results["generate"] = _generated(said, texts, what, settings.generate.sampling)
        _write_lines(
            settings.output / f"{name}.generate.jsonl",
            [
                {"source": prompt.source, "text": text, "reference": prompt.reference}
                for prompt, text in zip(what.prompts, texts, strict=True)
            ],
        )
    if settings.socrates is not None:
        said = _said(lm, what.item_ids, settings.socrates.sampling, settings, what)
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in said]
        results["socrates"] = _answered(name, texts, settings, what)
    return results


def _said(
    lm: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    settings: Evaluation,
    what: Asked,
) -> list[list[int]]:
    return generate(
        lm,
        prompts,
        sampling=sampling,
        stops=what.stops,
        pad=what.pad,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )


def _generated(
    said: Sequence[Sequence[int]], texts: Sequence[str], what: Asked, sampling: Sampling
) -> dict[str, Any]:
    count = max(1, len(said))
    scores = [
        rouge_l(text, prompt.reference)
        for prompt, text in zip(what.prompts, texts, strict=True)
        if prompt.reference is not None
    ]
    return {
        "examples": len(said),
        "mean_tokens": sum(map(len, said)) / count,
        "ended": sum(len(each) < sampling.max_new_tokens for each in said) / count,
        "rouge_l": sum(scores) / len(scores) if scores else None,
    }


def _answered(name: str, texts: Sequence[str], settings: Evaluation, what: Asked) -> dict[str, Any]:
    assert what.items is not None
    items = what.items.asked
    given = socrates.answers(items, texts)
    _write_lines(
        settings.output / f"{name}.socrates.jsonl",
        [
            {"source": item.source, "text": text, "answer": value, "response": item.response}
            for item, text, value in zip(items, texts, given, strict=True)
        ],
    )
    measured = socrates.measures(items, given, seed=settings.seed)
    extra = {"constant_scale": what.items.constant, "observed_scale": what.items.observed}
    return {**measured, **extra}


def _compared(results: Mapping[str, Any], settings: Evaluation, what: Asked) -> dict[str, Any]:
    if BASELINE not in results or CHECKPOINT not in results:
        return {}
    before, after = results[BASELINE], results[CHECKPOINT]
    found: dict[str, Any] = {}
    if settings.loss is not None:
        losses = [each["loss"]["loss"] for each in (before, after)]
        found["loss"] = {"difference": None if None in losses else losses[1] - losses[0]}
    if settings.socrates is not None and what.items is not None:
        studies = socrates.studies(what.items.asked)
        found["socrates"] = socrates.compare(
            before["socrates"],
            after["socrates"],
            studies,
            needed=settings.socrates.improvement,
            resamples=settings.socrates.resamples,
            seed=settings.seed,
        )
    return found


def _write(path: Path, record: Mapping[str, Any]) -> None:
    growing = path.with_suffix(".partial")
    growing.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    growing.replace(path)


def _write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
