"""A pod: an HTTP server that answers with its name, once a request: `pod.py NAME PORT`."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Pod(BaseHTTPRequestHandler):
    """Keeps connections open, as long as the client wants."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Any path."""
        body = f"{sys.argv[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """With a queue for hundreds of clients at once."""

    request_queue_size = 1024


Server(("0.0.0.0", int(sys.argv[2])), Pod).serve_forever()
