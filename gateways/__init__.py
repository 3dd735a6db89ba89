"""Relays that move bytes where the kernel cannot: egress, federation, ports of other nodes.

Empty until clusters come: on one node every connection is a plain kernel socket, and an
exposed port on the service's own node needs no relay.
"""
