"""Istio's protocol, from bytes to vservices."""
