"""The few functions of libbpf.so.1 that we call, with their errors as OSError.

Source: libbpf's own headers (bpf.h, libbpf.h), API version 1.x; Debian installs the library with iproute2.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from appswitch.errors import Unsupported
from appswitch.interceptor.libbpf_words import heard, reason

F_ALLOW_MULTI: Final = 1 << 1
F_REPLACE: Final = 1 << 2
MOST_ATTACHED: Final = 64
"""Programs of one kind that a cgroup can have (BPF_CGROUP_MAX_PROGS)."""
ANY: Final = 0
NOEXIST: Final = 1

_pointer = ctypes.c_void_p
_string = ctypes.c_char_p
_int = ctypes.c_int
_SIGNATURES: Final[dict[str, tuple[object, tuple[object, ...]]]] = {
    "bpf_object__open": (_pointer, (_string,)),
    "bpf_object__load": (_int, (_pointer,)),
    "bpf_object__close": (None, (_pointer,)),
    "bpf_object__find_map_by_name": (_pointer, (_pointer, _string)),
    "bpf_object__find_program_by_name": (_pointer, (_pointer, _string)),
    "bpf_map__fd": (_int, (_pointer,)),
    "bpf_map__set_pin_path": (_int, (_pointer, _string)),
    "bpf_program__fd": (_int, (_pointer,)),
    "bpf_prog_attach_opts": (_int, (_int, _int, _int, _pointer)),
    "bpf_prog_query": (_int, (_int, _int, ctypes.c_uint32, _pointer, _pointer, _pointer)),
    "bpf_prog_get_fd_by_id": (_int, (ctypes.c_uint32,)),
    "bpf_prog_detach2": (_int, (_int, _int, _int)),
    "bpf_obj_get_info_by_fd": (_int, (_int, _pointer, _pointer)),
    "bpf_enable_stats": (_int, (_int,)),
    "bpf_obj_get": (_int, (_string,)),
    "bpf_obj_pin": (_int, (_int, _string)),
    "bpf_link_create": (_int, (_int, _int, _int, _pointer)),
    "bpf_link_update": (_int, (_int, _int, _pointer)),
    "bpf_map_update_elem": (_int, (_int, _string, _string, ctypes.c_uint64)),
    "bpf_map_lookup_elem": (_int, (_int, _string, _pointer)),
    "bpf_map_lookup_and_delete_elem": (_int, (_int, _string, _pointer)),
    "bpf_map_delete_elem": (_int, (_int, _string)),
    "bpf_map_get_next_key": (_int, (_int, _string, _pointer)),
    "ring_buffer__new": (_pointer, (_int, _pointer, _pointer, _pointer)),
    "ring_buffer__epoll_fd": (_int, (_pointer,)),
    "ring_buffer__consume": (_int, (_pointer,)),
    "ring_buffer__free": (None, (_pointer,)),
    "libbpf_set_print": (_pointer, (_pointer,)),
}
Ours = Callable[[str, tuple[int, ...]], bool]
"""Whether a program is ours, by its name and the numbers of its maps."""
_SAMPLE = ctypes.CFUNCTYPE(_int, _pointer, _pointer, ctypes.c_size_t)


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info, its beginning (linux/bpf.h)"""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
    )


class _AttachOptions(ctypes.Structure):
    """struct bpf_prog_attach_opts"""

    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("replace_prog_fd", ctypes.c_int))


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """libbpf, loaded once and silent.  Raises Unsupported where it is not installed."""
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise Unsupported(
            f"libbpf.so.1 does not load ({error}): install it with: apt-get install libbpf1"
        ) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = list(arguments)
    lib.libbpf_set_print(None)
    return lib


def _check(result: int, what: str) -> int:
    if result < 0:
        # libbpf 1.x returns -errno; plain system call wrappers set errno as well
        number = -result if result != -1 else ctypes.get_errno() or 1
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


class Map:
    """An open map: bytes in, bytes out.  `fd` stays the caller's to close where it opened it."""

    __slots__ = ("_lib", "fd", "key_size", "name", "value_size")

    def __init__(self, fd: int, name: str, key_size: int, value_size: int) -> None:
        self._lib = library()
        self.fd = fd
        self.name = name
        self.key_size = key_size
        self.value_size = value_size

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Raises OSError: E2BIG full, EEXIST with NOEXIST, ENOENT no such cgroup (storage maps)."""
        _check(self._lib.bpf_map_update_elem(self.fd, key, value, flags), f"map {self.name}")

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value = ctypes.create_string_buffer(self.value_size)
        if self._lib.bpf_map_lookup_elem(self.fd, key, value) < 0:
            return None
        return value.raw

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        return bool(self._lib.bpf_map_delete_elem(self.fd, key) == 0)

    def take(self, key: bytes) -> bytes | None:
        """The value, taken out of a hash; None: it was not there (hashes: Linux 5.14)."""
        value = ctypes.create_string_buffer(self.value_size)
        if self._lib.bpf_map_lookup_and_delete_elem(self.fd, key, value) < 0:
            return None
        return value.raw

    def push(self, value: bytes) -> None:
        """Of a queue map: raises OSError E2BIG when full."""
        _check(self._lib.bpf_map_update_elem(self.fd, None, value, ANY), f"map {self.name}")

    def pop(self) -> bytes | None:
        """Of a queue map: the oldest value, or None where it is empty."""
        value = ctypes.create_string_buffer(self.value_size)
        if self._lib.bpf_map_lookup_and_delete_elem(self.fd, None, value) < 0:
            return None
        return value.raw

    def keys(self) -> Iterator[bytes]:
        """Every key of a moment that may pass: entries that come or go meanwhile may be missed."""
        key: bytes | None = None
        seen: set[bytes] = set()
        following = ctypes.create_string_buffer(self.key_size)
        while self._lib.bpf_map_get_next_key(self.fd, key, following) == 0:
            key = following.raw
            if key not in seen:  # where a key is deleted meanwhile, the kernel begins anew
                seen.add(key)
                yield key

    def items(self) -> list[tuple[bytes, bytes]]:
        """Every entry that is there from beginning to end of the call."""
        found = []
        for key in list(self.keys()):
            value = self.get(key)
            if value is not None:
                found.append((key, value))
        return found


class Object:
    """A loaded object file.  Maps with a pin path are found again, or made and pinned."""

    def __init__(self, path: Path, pins: dict[str, Path]) -> None:
        """Raises OSError with the kernel's reason."""
        self._lib = library()
        self._object = self._lib.bpf_object__open(os.fsencode(path))
        if not self._object:
            number = ctypes.get_errno()
            raise OSError(number, f"{path}: {os.strerror(number)}")
        try:
            for name, pin in pins.items():
                pointer = self._lib.bpf_object__find_map_by_name(self._object, name.encode())
                _check(self._lib.bpf_map__set_pin_path(pointer, os.fsencode(pin)), f"pin {pin}")
            with heard(self._lib) as words:
                result = self._lib.bpf_object__load(self._object)
            why = reason(words) if result < 0 else ""
            _check(result, f"load {path.name}: {why}" if why else f"load {path.name}")
        except OSError:
            self.close()
            raise

    def map_fd(self, name: str) -> int:
        """Owned by the object."""
        pointer = self._lib.bpf_object__find_map_by_name(self._object, name.encode())
        return _check(self._lib.bpf_map__fd(pointer), f"map {name}")

    def program_fd(self, name: str) -> int:
        """Owned by the object."""
        pointer = self._lib.bpf_object__find_program_by_name(self._object, name.encode())
        return _check(self._lib.bpf_program__fd(pointer), f"program {name}")

    def close(self) -> None:
        """Pinned maps and attached programs live on."""
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None


def map_id(map_fd: int) -> int:
    """The kernel's number of a map: programs name those that they use.  Raises OSError."""
    return int.from_bytes(info(map_fd)[4:8], sys.byteorder)  # struct bpf_map_info: type, id, …


def info(descriptor: int) -> bytes:
    """The beginning of struct bpf_prog_info or bpf_map_info (linux/bpf.h).  Raises OSError."""
    found = ctypes.create_string_buffer(256)
    size = ctypes.c_uint32(len(found))
    _check(library().bpf_obj_get_info_by_fd(descriptor, found, ctypes.byref(size)), "BPF information")
    return found.raw


def enable_stats() -> int:
    """A descriptor: while it is open the kernel counts runs and time of programs.  Raises OSError."""
    return _check(library().bpf_enable_stats(0), "BPF_ENABLE_STATS")  # BPF_STATS_RUN_TIME


def attach(program_fd: int, cgroup_fd: int, kind: int, ours: Ours) -> None:
    """Attaches the program to the cgroup, in place of the one of ours that was attached there directly.

    Other people's, and those of another daemon, stay.
    BPF_PROG_ATTACH rather than a link: the attachment lives exactly as long as the cgroup does.
    Raises OSError; EPERM also where another's program wants to be the only one there.
    """
    lib = library()
    options = _AttachOptions(ctypes.sizeof(_AttachOptions), F_ALLOW_MULTI, 0)
    old = _find(cgroup_fd, kind, ours)
    try:
        if old:
            options.flags |= F_REPLACE
            options.replace_prog_fd = old[0]
        _check(lib.bpf_prog_attach_opts(program_fd, cgroup_fd, kind, ctypes.byref(options)), "attach")
    finally:
        for descriptor in old:
            os.close(descriptor)


def detach(cgroup_fd: int, kind: int, ours: Ours) -> None:
    """Takes our programs of this kind off the cgroup.  Raises OSError."""
    found = _find(cgroup_fd, kind, ours)
    try:
        for descriptor in found:
            _check(library().bpf_prog_detach2(descriptor, cgroup_fd, kind), "detach")
    finally:
        for descriptor in found:
            os.close(descriptor)


def attached(cgroup_fd: int, kind: int) -> list[tuple[str, tuple[int, ...]]]:
    """Name and maps of each program that is attached to the cgroup directly.  Raises OSError."""
    found = []
    for number in attached_numbers(cgroup_fd, kind):
        descriptor = library().bpf_prog_get_fd_by_id(number)
        if descriptor >= 0:
            try:
                found.append(_program(descriptor))
            finally:
                os.close(descriptor)
    return found


def attached_numbers(cgroup_fd: int, kind: int) -> list[int]:
    """The kernel's numbers of the programs attached to the cgroup directly.  Raises OSError."""
    count = ctypes.c_uint32(MOST_ATTACHED)
    ids = (ctypes.c_uint32 * MOST_ATTACHED)()
    flags = ctypes.c_uint32()
    query = library().bpf_prog_query
    _check(query(cgroup_fd, kind, 0, ctypes.byref(flags), ids, ctypes.byref(count)), "query")
    return list(ids[: count.value])


def _find(cgroup_fd: int, kind: int, ours: Ours) -> list[int]:
    """Descriptors, the caller's to close."""
    found = []
    for number in attached_numbers(cgroup_fd, kind):
        descriptor = library().bpf_prog_get_fd_by_id(number)
        if descriptor < 0:
            continue  # it has just gone
        found.append(descriptor)
    wanted: list[int] = []
    try:
        wanted = [descriptor for descriptor in found if ours(*_program(descriptor))]
    finally:
        for descriptor in set(found) - set(wanted):
            os.close(descriptor)
    return wanted


def _program(descriptor: int) -> tuple[str, tuple[int, ...]]:
    """Name and map numbers of a program."""
    ids = (ctypes.c_uint32 * 64)()
    info = _ProgramInfo(nr_map_ids=len(ids), map_ids=ctypes.addressof(ids))
    size = ctypes.c_uint32(ctypes.sizeof(info))
    _check(library().bpf_obj_get_info_by_fd(descriptor, ctypes.byref(info), ctypes.byref(size)), "program")
    return info.name.decode(errors="replace"), tuple(ids[: info.nr_map_ids])


def obj_get(path: Path) -> int:
    """A descriptor of a pinned map or link; the caller closes it.  Raises OSError."""
    return _check(library().bpf_obj_get(os.fsencode(path)), str(path))


def link_pinned(program_fd: int, target_fd: int, kind: int, pin: Path) -> None:
    """Attaches the program by the link pinned there, or by a new one: it lasts as long as the pin.

    Raises OSError.
    """
    lib = library()
    try:
        link = obj_get(pin)
        try:
            _check(lib.bpf_link_update(link, program_fd, None), f"link {pin}")
            return
        finally:
            os.close(link)
    except OSError:  # there is none, or what it was attached to is gone
        pin.unlink(missing_ok=True)
    link = _check(lib.bpf_link_create(program_fd, target_fd, kind, None), "link")
    try:
        _check(lib.bpf_obj_pin(link, os.fsencode(pin)), f"pin {pin}")
    finally:
        os.close(link)


BATCH: Final = 1024
"""Records handed over at once: some milliseconds of work."""


class RingBuffer:
    """The consumer's end of a ring buffer map."""

    def __init__(self, map_fd: int, receive: Callable[[bytes], None]) -> None:
        """`receive` is called with each record.  Raises OSError."""
        self._lib = library()
        self._room = 0

        def sample(_context: int, data: int, size: int) -> int:
            receive(ctypes.string_at(data, size))
            self._room -= 1
            return 0 if self._room > 0 else -errno.EAGAIN  # the record is taken, and the next one waits

        self._callback = _SAMPLE(sample)  # kept: the library holds only its address
        self._ring = self._lib.ring_buffer__new(map_fd, self._callback, None, None)
        if not self._ring:
            number = ctypes.get_errno()
            raise OSError(number, f"ring buffer: {os.strerror(number)}")

    @property
    def fd(self) -> int:
        """Readable while records wait; owned by the ring."""
        return int(self._lib.ring_buffer__epoll_fd(self._ring))

    def consume(self) -> None:
        """Hands over what waits, BATCH records at most: programs may write faster than we read.

        `fd` stays readable where more wait.  Raises OSError.
        """
        self._room = BATCH
        result = self._lib.ring_buffer__consume(self._ring)
        if result != -errno.EAGAIN:
            _check(result, "ring buffer")

    def close(self) -> None:
        """Frees it; `receive` is not called again."""
        if self._ring:
            self._lib.ring_buffer__free(self._ring)
            self._ring = None
