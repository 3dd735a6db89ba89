"""Istio's own messages, which no package has.

`nds_pb2.py` is generated and committed; make it again, from the repository's root, with
`python -P -m grpc_tools.protoc -I src --python_out=src src/appswitch/xds/proto/nds.proto`.
"""
