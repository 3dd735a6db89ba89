"""A holder that only remembers, as a process: `python -m fake_holder RUN_DIR SOCK_MAP_PIN`."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from appswitch.interceptor import inject_wire as wire


def main(run_dir: Path) -> None:
    """Until SIGTERM; what is asked is appended to RUN_DIR/asked.  RUN_DIR/old: it is an earlier release."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    path = run_dir / wire.SOCKET_NAME
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    flight = os.memfd_create("flight")
    old = run_dir / "old"
    revision = wire.REVISION - 1 if old.exists() else wire.REVISION
    old.unlink(missing_ok=True)
    apps: dict[int, tuple[wire.AppRecord, int]] = {}
    while True:
        connection, _ = listener.accept()
        while True:
            data, descriptors, _ = wire.receive(connection)
            if not data:
                break
            request = wire.decode_request(data)
            with (run_dir / "asked").open("ab") as asked:
                asked.write(data + b"\n")
            reply, out = wire.Reply(pid=os.getpid(), revision=revision), []
            if request.add is not None:
                apps[request.add.id] = (request.add, descriptors[0])
            if request.list is not None:
                records = tuple(record for record, _ in apps.values())
                reply = wire.Reply(pid=os.getpid(), revision=revision, apps=records)
                out = [flight, *(descriptor for _, descriptor in apps.values())]
            try:
                socket.send_fds(connection, [wire.encode(reply)], out)
            except OSError:  # it does not wait any more
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
