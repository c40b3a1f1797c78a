"""The screen of `watch`: event lines that scroll, and below them the run as it is now."""

from __future__ import annotations

import os
from datetime import datetime
from textwrap import wrap
from types import TracebackType
from typing import Any

import click

from orchestrator.core.run import Phase, Run
from orchestrator.views.flags import flag_words, red_flags
from orchestrator.views.progress import Picture
from orchestrator.views.words import dollars, duration, transfer_words

TRANSFER_LINE_S = 5.0
BAR = 20
_BARS = "▁▂▃▄▅▆▇█"


class Screen:
    """With `live`, a panel under the lines; else the lines alone, and a line a step shown."""

    def __init__(self, live: bool) -> None:
        self._live = _open_live() if live else None
        self._told_step: object = None
        self._told_troubles: list[str] = []
        self._told_transfer_at: datetime | None = None
        self._told_flags = ""

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def line(self, text: str) -> None:
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            click.echo(text)

    def show(self, run: Run, picture: Picture, now: datetime) -> None:
        if self._live:
            self._live.update("\n".join(_panel(run, picture, now)), refresh=True)
            return
        troubles = _troubles(picture)
        if troubles != self._told_troubles:
            self._told_troubles = troubles
            for trouble in troubles:
                click.echo(f"          {trouble}")
        self._show_transfer(picture, now)
        self._show_flags(run, now)
        step = picture.last.get("step")
        if isinstance(step, int) and step != self._told_step and step % 10 == 0:
            self._told_step = step
            click.echo(f"          {_training(picture)}")

    def _show_flags(self, run: Run, now: datetime) -> None:
        """Whole, with what they cost, whenever there are others than before."""
        words = flag_words(run)
        if words != self._told_flags:
            self._told_flags = words
            for flag in red_flags(run, now):
                click.echo(f"          RED FLAG: {flag}")

    def _show_transfer(self, picture: Picture, now: datetime) -> None:
        """What takes a while is told now and then; what is here soon is told by its event."""
        moving = _moving(picture)
        if not moving:
            self._told_transfer_at = None
        elif self._told_transfer_at is None:
            self._told_transfer_at = now
        elif (now - self._told_transfer_at).total_seconds() >= TRANSFER_LINE_S:
            self._told_transfer_at = now
            click.echo(f"          {moving}")


def _open_live() -> Any:
    from rich.live import Live  # loads only for a terminal

    return Live(auto_refresh=False, transient=True)


def _panel(run: Run, picture: Picture, now: datetime) -> list[str]:
    lines = ["", f"{run.id}  {run.state}  {dollars(run.spent_usd(now))} so far"]
    if run.phase and (len(run.phases) > 1 or run.phase.verdict or run.phase.until_step):
        lines.append(f"  phase        {phase_words(run.phase)}")
    doing = picture.now.get("doing")
    if doing and not run.terminal:
        lines.append(f"  now          {doing}")
    if picture.last:
        lines.append(f"  training     {_training(picture)}")
        lines.append(f"  loss         {_curve(picture)}")
    lines.append(f"  checkpoints  {len(run.seals)} sealed on the box, {len(run.mirrored)} here")
    moving = _moving(picture)
    if moving:
        lines.append(f"  on its way   {_bar(picture)}{moving}")
    for flag in red_flags(run, now):
        lines += wrap(f"  RED FLAG     {flag}", _width(), subsequent_indent=" " * 15)
    lines += [f"  {trouble}" for trouble in _troubles(picture)]
    return [line[: _width()] for line in lines]


def phase_words(phase: Phase) -> str:
    until = f", to step {phase.until_step}" if phase.until_step else ""
    gate = f", its gate says {phase.verdict}" if phase.verdict else ""
    return f"{phase.name}{until}{gate}"


def _moving(picture: Picture) -> str:
    moving = picture.now.get("transfer")
    if not isinstance(moving, dict):
        return ""
    done, total = moving.get("received", 0), moving.get("size_bytes", 0)
    return transfer_words(str(moving.get("name")), done, total, moving.get("bytes_per_s"))


def _bar(picture: Picture) -> str:
    moving = picture.now["transfer"]
    full = min(1.0, moving.get("received", 0) / (moving.get("size_bytes") or 1))
    return f"[{'=' * round(full * BAR)}{' ' * (BAR - round(full * BAR))}] "


def _troubles(picture: Picture) -> list[str]:
    """What failed last and is being tried again, but for the link, which comes and goes."""
    found = picture.now.get("troubles")
    told = found if isinstance(found, dict) else {}
    return [
        f"trying again: {verb}: {' '.join(str(words).split())[:200]}"
        for verb, words in sorted(told.items())
        if verb != "follow"
    ]


def _training(picture: Picture) -> str:
    last = picture.last
    parts = [f"step {last['step']}" + (f"/{last['max_steps']}" if last.get("max_steps") else "")]
    if isinstance(last.get("loss"), int | float):
        parts.append(f"loss {last['loss']:.4f}")
    if isinstance(last.get("tokens_per_s"), int | float):
        parts.append(f"{last['tokens_per_s']:.0f} tokens/s")
    left = _left_s(picture)
    return ", ".join([*parts, f"{duration(left)} left"] if left is not None else parts)


def _left_s(picture: Picture) -> float | None:
    steps, last = picture.steps, picture.last
    if len(steps) < 2 or not last.get("max_steps"):
        return None
    try:
        began, ended = (datetime.fromisoformat(each["at"]) for each in (steps[0], last))
        gained = last["step"] - steps[0]["step"]
        seconds: float = (
            (ended - began).total_seconds() / gained * (last["max_steps"] - last["step"])
        )
        return seconds
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _curve(picture: Picture) -> str:
    losses = [each["loss"] for each in picture.steps if isinstance(each.get("loss"), int | float)]
    if not losses:
        return ""
    low, high = min(losses), max(losses)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    bars = "".join(_BARS[int((loss - low) * scale)] for loss in losses)
    return f"{bars}  {losses[0]:.3f} -> {losses[-1]:.3f}"


def _width() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 100
