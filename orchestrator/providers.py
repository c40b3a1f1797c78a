"""The providers by name, each made when it is first asked for: what no job names never loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from orchestrator.errors import GpujobError
from orchestrator.ports import Provider


class Providers(Mapping[str, Provider]):
    """`makers` by name; one is asked again when `address` of its name has changed, so that a
    daemon follows a launch that went to another API. For one thread."""

    def __init__(
        self, makers: Mapping[str, Callable[[], Provider]], address: Callable[[str], str]
    ) -> None:
        self._makers = makers
        self._address = address
        self._made: dict[str, tuple[str, Provider]] = {}

    def __getitem__(self, name: str) -> Provider:
        maker, known = self._makers[name], self._made.get(name)
        try:
            address = self._address(name)
        except GpujobError:
            # A file of keys that was just spoilt must not keep what is rented from being ended.
            if known is None:
                raise
            address = known[0]
        if known is None or known[0] != address:
            known = self._made[name] = (address, maker())
        return known[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
