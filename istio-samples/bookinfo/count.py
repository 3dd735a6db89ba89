"""Who answers: `count.py ADDRESS PORT TIMES` asks on TIMES new connections and prints `NUMBER NAME` lines."""

import http.client
import sys
from collections import Counter

address, port, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names: Counter[str] = Counter()
for _ in range(times):
    connection = http.client.HTTPConnection(address, port, timeout=5)
    connection.request("GET", "/")
    names[connection.getresponse().read().decode().strip()] += 1
    connection.close()
for name, number in names.most_common():
    print(f"{number:4} {name}")
