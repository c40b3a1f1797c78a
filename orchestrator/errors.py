"""Every error a user can see, named after what the caller does next.

GpujobError
├── BadJobFile          2   fix the file (also an unset secret, a wrong flag)
├── NotFound            9   name something that exists
├── Ambiguous           2   say which of the candidates is meant
├── Missing             1   install or allow something on this machine
├── LedgerError         1   the ledger cannot be read or written
│   └── StaleLease      1   somebody else acts on the run now
├── IntegrityError      7   bytes are not what their manifest says
├── StorageBlocked      1   nothing can be stored here now: wait, and try again
├── ProviderError       1
│   ├── NoCapacity      3   take the next offer
│   ├── Transient       1   try again
│   ├── Refused         1   stop and show why; `provider_wide`: nothing else of it either
│   └── LostAnswer      1   list before anything else
├── ShellError          1
│   ├── Unreachable     1   try again; ask the provider whether the box is there
│   │   └── Locked      1   the box answers and does not take our key: ensure access, try again
│   ├── Wiped           1   what was put on the box is gone: prepare it again
│   ├── Unusable        1   the box is not what was rented: another one
│   ├── HostKeyChanged  1   stop: somebody else answers
│   └── CommandFailed   1   the command ran and said no
└── RunEnded            *   the run finished without success; carries its exit code
"""

from __future__ import annotations


class GpujobError(Exception):
    """What happened (the message), what to type next (the hint), how the command exits."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadJobFile(GpujobError):
    exit_code = 2


class NotFound(GpujobError):
    exit_code = 9


class Ambiguous(GpujobError):
    exit_code = 2


class Missing(GpujobError):
    exit_code = 1


class LedgerError(GpujobError):
    exit_code = 1


class StaleLease(LedgerError):
    pass


class IntegrityError(GpujobError):
    """`digest` is the checkpoint that a trainer was to begin with, when it is about one."""

    exit_code = 7
    digest = ""


class StorageBlocked(GpujobError):
    """A disk here is `full`, `read-only`, `missing` or `failing` (the `reason`). No bytes are
    wrong and none are lost: what waits for it is tried again."""

    def __init__(self, message: str, hint: str | None = None, *, reason: str = "full") -> None:
        super().__init__(message, hint)
        self.reason = reason


class ProviderError(GpujobError):
    pass


class NoCapacity(ProviderError):
    exit_code = 3


class Transient(ProviderError):
    """`retry_s` when it is known how long to wait: the account may ask again then."""

    def __init__(
        self, message: str, hint: str | None = None, *, retry_s: float | None = None
    ) -> None:
        super().__init__(message, hint)
        self.retry_s = retry_s


class Refused(ProviderError):
    """The provider says no, and will again. `provider_wide` when it is about the account (no or
    a wrong key, no balance) and not about this one offer."""

    def __init__(
        self, message: str, hint: str | None = None, *, provider_wide: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.provider_wide = provider_wide


class LostAnswer(ProviderError):
    pass


class ShellError(GpujobError):
    pass


class Unreachable(ShellError):
    pass


class Locked(Unreachable):
    pass


class Wiped(ShellError):
    pass


class Unusable(ShellError):
    pass


class HostKeyChanged(ShellError):
    pass


class CommandFailed(ShellError):
    """The remote command ended with `rc`; `stderr` holds its last words, at most 4 KiB."""

    def __init__(self, message: str, rc: int, stderr: str = "") -> None:
        super().__init__(message)
        self.rc = rc
        self.stderr = stderr


class RunEnded(GpujobError):
    def __init__(self, message: str, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
