"""Every error a user can see: one small tree, a class per thing somebody catches.

A message names the thing, the value, the reason and what to do next.  Exit codes are those of
sysexits.h, and they are part of the interface: scripts may rely on them.
"""


class AppSwitchError(Exception):
    """Base of all our errors; `exit_code` is what `ax` exits with."""

    exit_code = 70  # EX_SOFTWARE


class UsageError(AppSwitchError):
    """A flag, an argument or a setting is wrong."""

    exit_code = 64  # EX_USAGE


class InvalidInput(UsageError):
    """A value from outside (a message, a file, a request body) does not decode.

    Every decoder raises this and nothing else.
    """

    exit_code = 65  # EX_DATAERR


class NotFound(AppSwitchError):
    """A named resource does not exist."""

    exit_code = 66  # EX_NOINPUT


class Conflict(AppSwitchError):
    """A name or an address is taken, or another daemon owns the run directory."""

    exit_code = 73  # EX_CANTCREAT


class Unavailable(AppSwitchError):
    """Nobody answers: no daemon on this run directory, no Istiod at this address."""

    exit_code = 69  # EX_UNAVAILABLE


class Unsupported(AppSwitchError):
    """The kernel, the machine or the caller's rights do not allow it."""

    exit_code = 71  # EX_OSERR


class Denied(AppSwitchError):
    """The caller may not do this."""

    exit_code = 77  # EX_NOPERM


class Exhausted(AppSwitchError):
    """A table or a pool is full; nothing was changed."""

    exit_code = 75  # EX_TEMPFAIL
