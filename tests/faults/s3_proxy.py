"""A real S3-compatible server on loopback, and a proxy before it that spoils the requests it is told to.

The server is moto's, in a process of its own. Faults, by name:
- ``403``, ``500``, ``503``, ``slow down``: answered so, nothing reaches the server
- ``drop request``: closed amid the request's body; ``drop answer``: the server did it, the answer is lost
- ``cut answer``: half of the answer's body, then closed
- ``slow``: the server hears of it after `DELAY_S`, unless the client has left by then
- ``late``: the server does it at once, the answer comes after `DELAY_S`
- ``deaf``: the request's body is not read, so that a large one gets stuck on its way
"""

import http.client
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (  # that a client should outlive
    "500",
    "503",
    "slow down",
    "drop request",
    "drop answer",
    "cut answer",
    "slow",
    "late",
)
DELAY_S = 0.45
_DEAF_S = 6.0
BUCKET = "crops"
_ERRORS = {
    "403": (403, "AccessDenied"),
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "slow down": (503, "SlowDown"),
}
_HOP_BY_HOP = {"connection", "content-length", "date", "expect", "host", "server", "transfer-encoding"}
_STARTUP_S = 30.0

Plan = Callable[[int, str, str], str | None]


def no_fault(number: int, method: str, path: str) -> str | None:
    """The plan of a sound line. A plan is asked at each request, numbered from 0."""
    return None


class FaultyProxy(ThreadingHTTPServer):
    """Listens on a free port of loopback. ``plan`` may be changed at any time; ``seen`` are the requests."""

    daemon_threads = True

    def __init__(self, server_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_port_behind = server_port
        self._lock = threading.Lock()
        self.mend()

    def mend(self) -> None:
        """No faults from here on, and nothing seen yet."""
        self.plan: Plan = no_fault
        self.page_keys: int | None = None  # objects on a page of a listing, at most
        self.rewrite: Callable[[bytes], bytes] = bytes  # of each answer's body; lengths must stay
        self.seen: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault_of(self, method: str, path: str) -> str | None:
        with self._lock:
            number = len(self.seen)
            fault = self.plan(number, method, path)
            self.seen.append((method, path, fault))
        return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this is for."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10.0
    server: FaultyProxy

    def _pass_on(self) -> None:
        fault = self.server.fault_of(self.command, self.path)
        size = int(self.headers.get("Content-Length", 0))
        if fault == "drop request":
            self.rfile.read(size // 2)
            self._hang_up()
            return
        if fault == "deaf":
            time.sleep(_DEAF_S)
            self._hang_up()
            return
        body = self.rfile.read(size)
        if fault in _ERRORS:
            status, code = _ERRORS[fault]
            text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
            self._answer(status, {"Content-Type": "application/xml"}, text.encode())
            return
        if fault == "slow" and self._is_left_within(DELAY_S):
            return
        status, headers, answer = self._ask_server(body)
        if fault == "late":
            time.sleep(DELAY_S)
        if fault == "drop answer":
            self._hang_up()
        else:
            self._answer(status, headers, answer, cut=fault == "cut answer")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def _ask_server(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port_behind, timeout=20)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP - {"host"}}
            page = self.server.page_keys if "list-type=2" in self.path else None
            path = f"{self.path}&max-keys={page}" if page else self.path
            connection.request(self.command, path, body, headers)
            response = connection.getresponse()
            kept = {k: v for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP}
            if self.command == "HEAD":
                kept["Content-Length"] = response.getheader("Content-Length", "0")
            return response.status, kept, self.server.rewrite(response.read())
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._hang_up()

    def _is_left_within(self, seconds: float) -> bool:
        """Whether the client hangs up within that time; it sends nothing else before it has its answer."""
        if select.select([self.connection], [], [], seconds)[0]:
            self.close_connection = True
            return True
        return False

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def s3_server() -> Iterator[int]:
    """moto's server in a process of its own, with a bucket; its port on loopback. It holds all in memory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    small_parts = os.environ | {"S3_UPLOAD_PART_MIN_SIZE": "1024"}  # of multipart uploads; S3 itself: 5 MiB
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=small_parts)
    try:
        _wait_for(port, process)
        _make_bucket(port)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def faulty_proxy(server_port: int) -> Iterator[FaultyProxy]:
    with FaultyProxy(server_port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


def s3_settings(proxy: FaultyProxy) -> dict[str, object]:
    """fsspec's configuration of ``s3``: through the proxy, one request a try, so that faults count singly."""
    once = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
    return {"endpoint_url": proxy.url, "key": "key", "secret": "secret", "config_kwargs": once}


def _make_bucket(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20200101/us-east-1/s3/aws4_request"}
    connection.request("PUT", f"/{BUCKET}", headers=headers)
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise RuntimeError(f"bucket {BUCKET}: the server answers {status}")


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _STARTUP_S
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the S3 server did not start on port {port}")
