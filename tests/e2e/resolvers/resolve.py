"""The C library of the machine (glibc on Debian) through Python's socket module."""

import socket
import sys

NONE = (socket.EAI_NONAME, socket.EAI_NODATA)


def resolve(argument: str) -> str:
    try:
        if argument.startswith("ptr:"):
            flags = socket.NI_NAMEREQD
            return socket.getnameinfo((argument[4:], 0), flags)[0]
        found = socket.getaddrinfo(argument, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return "-" if error.errno in NONE else f"!{error}"
    return ",".join(sorted({item[4][0] for item in found}))


for argument in sys.argv[1:]:
    print(f"{argument}={resolve(argument)}", flush=True)
