"""The first batch as the model sees it: the cheapest look at what is learned."""

from __future__ import annotations

from typing import Any

from remote.trainer.data.rows import Report, Store

SHOWN_TOKENS = 400


def first_batch(store: Store, rows: list[int], tokenizer: Any) -> str:
    """The first row of the first step, what is learned of it in [[ ]], and where it comes from."""
    lines = []
    for number, encoded in enumerate(store.row(rows[0])):
        ids, learned = encoded.ids[:SHOWN_TOKENS], encoded.learned[:SHOWN_TOKENS]
        name = "" if store.parts == 1 else (" (chosen)" if number == 0 else " (rejected)")
        more = "" if len(encoded.ids) == len(ids) else f" … and {len(encoded.ids) - len(ids)} more"
        text = "".join(_spans(ids.tolist(), learned.tolist(), tokenizer))
        lines.append(f"first example{name}, {store.source(rows[0])}; learned in [[ ]]:")
        lines.append(f"{text}{more}")
    return "\n".join(lines)


def summary(report: Report) -> str:
    """What became of the rows, in a line."""
    cut, masked = (100 * each / max(1, report.rows) for each in (report.truncated, report.masked))
    return (
        f"data: {report.rows:,} examples: {cut:.2f} % cut to the longest length,"
        f" {masked:.2f} % dropped because nothing is left to learn;"
        f" {report.tokens:,} tokens, of which {report.learned:,} learned"
    )


def _spans(ids: list[int], learned: list[bool], tokenizer: Any) -> list[str]:
    spans: list[str] = []
    begin = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or learned[at] != learned[begin]:
            text = tokenizer.decode(ids[begin:at])
            spans.append(f"[[{text}]]" if learned[begin] else text)
            begin = at
    return spans
