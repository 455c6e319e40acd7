"""A receiver of webhooks: a real HTTP server that writes down what comes."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """Answers each message as `answer` says, which is given the handler and may do what it likes with it."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers in lower case, and body, in the order of arrival."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?of=lathe"


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer with nothing in it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@contextmanager
def receiver(
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """A receiver on this machine, on a port of its own, while the block runs. By default it answers 204."""
    receiving = Receiver(answer or status(204))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiving.messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
            receiving.answer(self)

        def do_GET(self) -> None:
            receiving.messages.append(({"method": "GET"}, b""))
            status(200)(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Whoever is cut off is not told of."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiving.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiving
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
