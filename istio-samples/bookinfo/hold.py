"""One long connection: `hold.py ADDRESS PORT` asks again and again on it and prints `NAME REQUESTS`."""

import http.client
import sys
import time

connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
connection.connect()
connection.auto_open = 0  # a lost connection is an error, never a new one
requests = 0
while True:
    connection.request("GET", "/")
    requests += 1
    print(connection.getresponse().read().decode().strip(), requests, flush=True)
    time.sleep(0.2)
