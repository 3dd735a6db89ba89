"""One attack a test, each against a whole node; docs/security.md names the test of each of its lines.

- `test_reach.py`, `test_sockets.py`, `test_names.py`: a program of an app's
- `test_user.py`, `test_flood.py`: an ordinary user of the node
- `test_container.py`: what runs in a container
- `test_outside.py`: programs of the node that are in no app, the network
"""
