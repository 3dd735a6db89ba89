"""What an app's network calls mean, and the kernel driver that makes them mean it.

Reading order:

1. `decision.py`  the pure decision: what any app gets for any destination, and why
2. `alias.py`     weights as integers: alias tables and weighted round robin
3. `tables.py`    compiles decisions into table entries and differences
4. `abi.py`       the layouts shared with the C programs in `bpf/`
5. `libbpf.py`    the few functions of libbpf that we call
6. `kernel.py`    loads, pins, attaches, writes; `waiting.py` what connect-wait attaches to the node
7. `events.py`    decodes what the programs tell
8. `reset.py`     a RST for strangers of this node
9. `cgroup.py`    an app's control group; `network.py` its network namespace
10. `pool.py`      the ports that listening apps really get
11. `inject.py`   sockets for apps in an empty namespace (its own process: the holder)
    `holder_client.py`, `inject_wire.py` (the daemon's side, the messages), `inject_control.py`,
    `inject_loop.py`, `inject_stock.py`, `inject_flight.py`, `seccomp.py`
12. `build.py`    compiles `bpf/` and `launcher/` with zig

Nothing here knows REST, DNS, Istio or the command line.
"""
