"""An ordinary user and the daemon's files: `tamper.py RUN-DIR PINS`; prints each refusal's errno name."""

import errno
import os
import socket
import sys
from collections.abc import Callable

run_dir, pins = sys.argv[1:]


def attempt(what: Callable[[], object]) -> None:
    """Prints what came of it."""
    try:
        what()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno or 0])


for name in ("journal", "resolv.conf", "dns_port", "reserved_ports", "lock", "holder.log", "new"):
    attempt(lambda name=name: os.open(f"{run_dir}/{name}", os.O_WRONLY | os.O_CREAT))
attempt(lambda: os.unlink(f"{run_dir}/daemon.sock"))
attempt(lambda: os.rename(run_dir, run_dir + "-gone"))
attempt(lambda: os.listdir(pins))
attempt(lambda: os.mkdir(f"{os.path.dirname(pins)}/other"))
for name in ("api.sock", "holder.sock"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        attempt(lambda name=name, kind=kind: socket.socket(socket.AF_UNIX, kind).connect(f"{run_dir}/{name}"))
