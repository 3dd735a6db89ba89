"""AppSwitch: a proxyless service mesh, decided at connect().

What belongs here is only what every package shares.  Reading order:

1. `model.py`    the vocabulary: apps, labels, services, vservices, decisions' inputs
2. `errors.py`   every error a user can see, with its exit code
3. `interceptor` the decision and the kernel driver that applies it
4. `xds`         Istio's protocol, from bytes to vservices
5. `agent`       the daemon and the `ax` command, which join the others
6. `gateways`    relays between clusters (empty until the cluster issue)
"""
