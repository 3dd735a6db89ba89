"""What REST answers and `ax get bpf` shows: our programs and maps in the kernel.  Pure."""

from __future__ import annotations

import msgspec


class BpfView(msgspec.Struct, frozen=True, kw_only=True):
    """One program or one map."""

    kind: str
    """`program` or `map`."""
    name: str
    id: int
    """The kernel's number, as `bpftool` takes it."""
    memory: int
    """Bytes that the kernel accounts for."""
    attached: int | None = None
    """Programs: how many control groups it hangs on."""
    runs: int | None = None
    """Programs: how often it ran, while statistics were on (with `seconds`: within those)."""
    nanoseconds: int | None = None
    """Programs: how long all of these runs took."""
    entries: int | None = None
    """Maps: in use; null where the kernel cannot count them."""
    capacity: int | None = None
    """Maps: entries; of the ring `events`: bytes."""
