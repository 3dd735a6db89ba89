"""Istio's protocol, from bytes to vservices.  Knows xDS, and nothing of apps, kernels or daemons.

In reading order:
`resources.py`   what is kept of a push, free of protobuf
`decode.py`      bytes to resources (`decode_cluster.py`, `decode_listener.py`, `decode_route.py`;
                 who may connect: `decode_access.py`; what is not honoured is collected by `leftover.py`)
`ads.py`         what goes in and comes out of the protocol
`held.py`        what is in force, what is rejected, and what is waited for (`timers.py`); `status.py`: the
                 same in the words of the client status API
`dialogue.py`    the protocol as a pure state machine: `sotw.py` (state of the world) and `delta.py`
`resolution.py`  host names of DNS clusters: what to ask for, when, and what comes of it
`translate.py`   resources to vservices (`chains.py`, `members.py`, `balance.py`, `rows.py`, `names.py`)
`requests.py`    the bytes that we send
`client.py`      the gRPC stream around all that (`backoff.py`), over `transport.py`: plaintext or TLS
`recording.py`   recorded pushes; `replay.py` and `replay_cli.py` serve them like an Istiod
`proto/`         Istio's own messages
`make.py`        makes resources and responses, for `conformance/`: the judge of ADS clients; and for tests

xds-protos installs a top-level package `xds`: import this one only as appswitch.xds.
"""
