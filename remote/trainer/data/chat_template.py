"""A Hugging Face chat template that also says what of a conversation is learned.

Learned is what the model has to produce: from where the generation prompt ends, up to and with
the token that ends the turn. A `generation` block in the template wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from remote.trainer.data.draft import Draft, Span
from remote.trainer.data.files import RowError
from remote.trainer.data.guard import Guard
from remote.trainer.data.jinja import BEGIN, END, Jinja
from remote.trainer.data.shapes import Message
from remote.trainer.data.skeleton import Skeleton, Turn, slots, stand_in
from remote.trainer.problems import TrainError

_HERE = "\ufdd6"  # put where a content ends, to find the place again
_MARK = re.compile(f"[{BEGIN}{END}]")
_KEPT_SKELETONS = 4096
_ENOUGH = 16  # characters at a content's end by which it is recognised


class ChatTemplate:
    """Implements `Template`. `count` says how many control tokens a text is tokenised to."""

    def __init__(self, jinja: Jinja, guard: Guard, count: Callable[[str], int]) -> None:
        self._jinja, self._guard, self._count = jinja, guard, count
        self._skeletons: dict[tuple[str, ...], Skeleton | None] = {}

    def conversation(self, messages: Sequence[Message], learned_from: int) -> Draft:
        safe = [self._guard.message(each) for each in messages]
        text = self._jinja.render(safe)
        if BEGIN in text:
            return self._marked(text, safe, learned_from)
        skeleton = self._skeleton(safe)
        if skeleton is not None:
            expected, where = skeleton.fill([each["content"] for each in safe])
            if expected == text:
                spans = skeleton.spans(text, where, learned_from)
                return Draft(self._guard.pieces(text, spans), skeleton.controls)
        turns = [self._turn(text, safe, n) for n in _assistants(safe, learned_from)]
        return Draft(self._guard.pieces(text, turns), self._guard.controls(text))

    def prompt(self, messages: Sequence[Message]) -> Draft:
        safe = [self._guard.message(each) for each in messages]
        text = _MARK.sub("", self._jinja.render(safe, prompt=True))
        return Draft(self._guard.pieces(text, ()), self._guard.controls(text))

    def _marked(self, text: str, messages: Sequence[Message], learned_from: int) -> Draft:
        """What `generation` blocks hold, and the token right behind that was left outside."""
        text, blocks = _without_marks(text)
        answers = _assistants(messages, learned_from)
        for number in answers:
            _check_written(text, messages[number])
        if learned_from:
            blocks = self._later(text, blocks, messages, learned_from)
        spans = [(begin, self._closed(text, begin, end)) for begin, end in blocks]
        return Draft(self._guard.pieces(text, spans), self._guard.controls(text))

    def _later(
        self, text: str, blocks: list[Span], messages: Sequence[Message], learned_from: int
    ) -> list[Span]:
        """The blocks of messages from `learned_from` on: by their number where each turn has one,
        else those behind what comes before."""
        if len(blocks) == len(_assistants(messages, 0)):
            return blocks[len(blocks) - len(_assistants(messages, learned_from)) :]
        before, _ = _without_marks(self._rendered(messages[:learned_from]) or "")
        return [each for each in blocks if each[1] > _shared(text, before)]

    def _closed(self, text: str, begin: int, end: int) -> int:
        last = self._guard.last(text, begin, end)
        behind = self._guard.first(text, end, len(text))
        closed = last is not None and not text[last[1] : end].strip()
        return end if closed or behind is None or behind[0] != end else behind[1]

    def _skeleton(self, messages: Sequence[Message]) -> Skeleton | None:
        if any(len(each) > 2 or not each["content"] for each in messages):
            return None
        roles = tuple(each["role"] for each in messages)
        if roles not in self._skeletons:
            if len(self._skeletons) >= _KEPT_SKELETONS:
                self._skeletons.clear()
            self._skeletons[roles] = self._analysed(roles)
        return self._skeletons[roles]

    def _analysed(self, roles: tuple[str, ...]) -> Skeleton | None:
        shown: list[Message] = [
            {"role": role, "content": stand_in(n)} for n, role in enumerate(roles)
        ]
        try:
            text = self._jinja.render(shown)
            found, after = slots(text)
            bare = Skeleton(found, after, {}, self._count(text))
            _, where = bare.fill([each["content"] for each in shown])
            turns = {n: self._around(text, shown, n, where[n]) for n in _assistants(shown, 0)}
        except (RowError, KeyError):
            return None  # each conversation is then looked at by itself
        return bare._replace(turns=turns)

    def _around(self, text: str, shown: Sequence[Message], number: int, content: Span) -> Turn:
        begin, end = self._turn(text, shown, number)
        prompt = self._rendered(shown[:number], prompt=True) or ""
        given = prompt[begin:] if prompt[:begin] == text[:begin] else ""
        return Turn(max(0, content[0] - begin), end - content[1], given)

    def _turn(self, text: str, messages: Sequence[Message], number: int) -> Span:
        """Where the model begins to write message `number`, and where it has to stop.

        Raises RowError when it cannot be told, TrainError when nothing ends the turn.
        """
        said = self._content_end(text, messages, number)
        if said is None:
            _check_written(text, messages[number])
        limit = self._limit(text, messages, number, said)
        begin = self._begin(text, messages, number, said)
        return begin, self._stop(text, messages[number], said, begin=begin, limit=limit)

    def _begin(self, text: str, messages: Sequence[Message], number: int, said: int | None) -> int:
        """Where `text` departs from the generation prompt, which may hold more than a finished
        turn does (`<think>`); where the content begins when the turns before differ too."""
        before = self._rendered(messages[:number])
        prompt = self._rendered(messages[:number], prompt=True)
        if prompt is not None and before is not None and text.startswith(before):
            return max(len(before), _shared(text, prompt))
        if prompt is not None and text.startswith(prompt):
            return len(prompt)
        content = messages[number]["content"].strip()
        if said is None or not text.endswith(content, 0, said):
            raise _lost(number)
        return said - len(content)

    def _content_end(self, text: str, messages: Sequence[Message], number: int) -> int | None:
        """Where in `text`, which is these messages rendered, the content of one ends."""
        content = messages[number]["content"]
        core = content.rstrip()
        marked = {**messages[number], "content": core + _HERE + content[len(core) :]}
        shown = self._rendered([*messages[:number], marked, *messages[number + 1 :]])
        if not core or shown is None or shown.count(_HERE) != 1:
            return None
        return shown.index(_HERE) if shown.replace(_HERE, "") == text else None

    def _limit(self, text: str, messages: Sequence[Message], number: int, said: int | None) -> int:
        """Where what the template writes for message `number` ends. Raises RowError."""
        so_far = messages[: number + 1]
        if len(so_far) == len(messages):
            return len(text)
        shown = self._rendered(so_far)
        if shown is not None and text.startswith(shown):
            return len(shown)
        there = self._content_end(shown, so_far, number) if shown is not None else None
        if said is None or shown is None or there is None:
            raise _lost(number)
        return said + max(
            _shared(text[said:], shown[there:]), self._other_end(text, said, shown, there)
        )

    def _other_end(self, text: str, said: int, shown: str, there: int) -> int:
        """Some templates end the last turn with another token than the turns before."""
        here, last = (
            self._guard.first(each, at, len(each)) for each, at in ((text, said), (shown, there))
        )
        if here is None or last is None or (text[said : here[0]] + shown[there : last[0]]).strip():
            return 0
        return here[1] - said

    def _stop(
        self, text: str, message: Message, said: int | None, *, begin: int, limit: int
    ) -> int:
        """The end of the token that ends a turn: the first after the content, and the last of
        all when the turn goes on after it."""
        if said is not None and not message.get("tool_calls"):
            token = self._guard.first(text, said, limit)
        else:
            token = self._guard.last(text, begin, limit)
        if token is None:
            raise TrainError(
                [
                    "template: the chat template ends the assistant's turns with no token of its"
                    " own, so the model would never learn to stop; give one that writes eos_token"
                ]
            )
        return token[1]

    def _rendered(self, messages: Sequence[Message], *, prompt: bool = False) -> str | None:
        try:
            return self._jinja.render(messages, prompt=prompt)
        except RowError:
            return None


def _assistants(messages: Sequence[Message], first: int) -> list[int]:
    return [n for n, each in enumerate(messages) if each["role"] == "assistant" and n >= first]


def _check_written(text: str, message: Message) -> None:
    """Templates for pictures drop what is a mere text, and the turn would seem to be empty."""
    *_, last = message["content"].rstrip().split("\n")
    if last.strip()[-_ENOUGH:] not in text:
        raise RowError("the chat template does not write the assistant's words")


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    shorter = min(len(one), len(other))
    return next((n for n in range(shorter) if one[n] != other[n]), shorter)


def _without_marks(text: str) -> tuple[str, list[Span]]:
    parts: list[str] = []
    begins: list[int] = []
    blocks: list[Span] = []
    at = length = 0
    for match in _MARK.finditer(text):
        parts.append(text[at : match.start()])
        length += match.start() - at
        at = match.end()
        if match[0] == BEGIN:
            begins.append(length)
        elif begins:
            blocks.append((begins.pop(), length))
    parts.append(text[at:])
    return "".join(parts), [each for each in blocks if each[0] < each[1]]


def _lost(number: int) -> RowError:
    return RowError(
        f"message {number + 1}: where the assistant's words are cannot be told from the chat"
        " template; give one that has them in {% generation %}"
    )
