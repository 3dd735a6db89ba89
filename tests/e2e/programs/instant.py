"""bind + listen + connect at once: `instant.py OWN-ADDRESS TIMES` prints how many worked."""

import socket
import sys

worked = 0
for number in range(int(sys.argv[2])):
    with socket.socket() as listener, socket.socket() as dialler:
        listener.bind(("0.0.0.0", 10000 + number))
        listener.listen()
        dialler.settimeout(5)
        try:
            dialler.connect((sys.argv[1], 10000 + number))
        except OSError as error:
            print(number, error, file=sys.stderr)
            continue
        listener.settimeout(5)
        listener.accept()[0].close()
        worked += 1
print(worked)
