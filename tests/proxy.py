"""A network that fails as told: an HTTP proxy between a client and an S3 server, both on loopback.

    with proxy(endpoint, seed=1) as network:
        network.refuse(0.1)
        …  # the client talks to network.endpoint

Requests are taken in whole before they are passed on, so that a server never sees half of one;
answers pass block by block. Signatures stay right, since the client's Host header is passed on.
"""

import http.client
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

BLOCK_BYTES = 64 << 10
POLL_S = 0.02

How = Literal["reset", "swallow"]
Direction = Literal["up", "down"]


class _Lost(Exception):
    """The connection is to be reset."""


class _Break(NamedTuple):
    direction: Direction
    num_bytes: int
    cut_s: float
    how: How


class Network:
    """What the proxy does to whoever passes; every method may be called at any time.

    Attributes:
        endpoint: where clients find it.
        num_requests: that have come.
        num_refused: that were answered by the proxy itself.
        num_broken: connections that were reset, or not answered.
        cut_began: set when the first cut has begun.
    """

    def __init__(self, target: str, seed: int) -> None:
        parts = urlsplit(target)
        assert parts.hostname
        self.target = (parts.hostname, parts.port or 80)
        self.endpoint = ""
        self.num_requests = self.num_refused = self.num_broken = 0
        self.cut_began = threading.Event()
        self.failures: list[BaseException] = []
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._share, self._code = 0.0, "SlowDown"
        self._delay_s = 0.0
        self._cut_until, self._how = 0.0, "reset"
        self._breaks: list[_Break] = []
        self._lost_answers, self._lost_method, self._lost_part = 0, "", ""
        self._expired: set[str] = set()

    def refuse(self, share: float, code: str = "SlowDown") -> None:
        """Answer 503 to this share of requests, drawn by the seed."""
        with self._lock:
            self._share, self._code = share, code

    def delay(self, seconds: float) -> None:
        """Wait so long before each request is passed on."""
        self._delay_s = seconds

    def cut(self, seconds: float, how: How = "reset") -> None:
        """Let nothing pass from now on for so long.

        Args:
            seconds: how long.
            how: `reset` ends every connection at once; `swallow` is silent, as a broken router is,
                and resets what has come when the cut is over.
        """
        with self._lock:
            self._cut_until, self._how = time.monotonic() + seconds, how
        self.cut_began.set()

    def break_bodies(
        self,
        direction: Direction,
        num_bytes: int,
        times: int = 1,
        cut_s: float = 0.0,
        how: How = "reset",
    ) -> None:
        """Reset connections in the midst of a body.

        Args:
            direction: `up` is what clients send, `down` what they are answered.
            num_bytes: of a body that pass before.
            times: how often.
            cut_s: for how long the network is gone then, for everyone.
            how: see `cut`.
        """
        with self._lock:
            self._breaks += [_Break(direction, num_bytes, cut_s, how)] * times

    def lose_answers(self, times: int, method: str = "PUT", part: str = "") -> None:
        """Pass so many requests on, and reset instead of answering.

        Args:
            times: how many.
            method: of which method.
            part: and with what in path or query.
        """
        with self._lock:
            self._lost_answers, self._lost_method, self._lost_part = times, method, part

    def expire(self, *key_ids: str) -> None:
        """Answer ExpiredToken to whoever signs with one of these key ids; none: to nobody."""
        self._expired = set(key_ids)

    # What follows is the proxy's own.

    def enter(self, authorization: str) -> tuple[int, str] | None:
        """Count a request; status and code where it shall not pass."""
        with self._lock:
            self.num_requests += 1
            refused = self._share > 0 and self._random.random() < self._share
            code = self._code
            key_id = authorization.partition("Credential=")[2].partition("/")[0]
            expired = key_id in self._expired
            self.num_refused += refused or expired
        if expired:
            return 400, "ExpiredToken"
        return (503, code) if refused else None

    def pass_block(self, direction: Direction, passed: int) -> None:
        """Called as bytes of a body pass; raises where they shall not."""
        with self._lock:
            due = [
                one
                for one in self._breaks
                if one.direction == direction and passed >= one.num_bytes
            ]
            broken = due[0] if due else None
            if broken:
                self._breaks.remove(broken)
        if broken:
            if broken.cut_s:
                self.cut(broken.cut_s, broken.how)
            raise _Lost
        self.stand()

    def stand(self) -> None:
        """Raise while the network is cut."""
        if time.monotonic() >= self._cut_until:
            return
        while self._how == "swallow" and time.monotonic() < self._cut_until:
            time.sleep(POLL_S)
        raise _Lost

    def wait(self) -> None:
        """The delay before a request."""
        time.sleep(self._delay_s)

    def loses_answer(self, method: str, path: str) -> bool:
        """Whether this request's answer is to be lost."""
        with self._lock:
            meant = method == self._lost_method and self._lost_part in path
            lost = meant and self._lost_answers > 0
            self._lost_answers -= lost
        return lost


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    network: Network

    def _serve(self) -> None:
        try:
            self._pass()
        except _Lost:
            with self.network._lock:
                self.network.num_broken += 1
            self._reset()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client has gone

    def _pass(self) -> None:
        network = self.network
        network.stand()
        body = self._body()
        refusal = network.enter(self.headers.get("Authorization", ""))
        if refusal:
            self._refuse(*refusal)
            return
        network.wait()
        network.stand()
        upstream = http.client.HTTPConnection(*network.target, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "expect"):
                    upstream.putheader(name, value)
            if self.headers.get("Transfer-Encoding"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body or None)
            self._answer(upstream.getresponse())
        finally:
            upstream.close()

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                self.network.pass_block("up", sum(map(len, parts)))
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        left, body = int(self.headers.get("Content-Length") or 0), bytearray()
        while left:
            block = self.rfile.read(min(left, BLOCK_BYTES))
            if not block:
                raise ConnectionResetError("the client has gone")
            left -= len(block)
            body += block
            self.network.pass_block("up", len(body))
        return bytes(body)

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        if self.network.loses_answer(self.command, self.path):
            raise _Lost
        length = answer.getheader("Content-Length")
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        whole = answer.read() if length is None and has_body else None
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if whole is not None:
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        if whole is not None:
            self.wfile.write(whole)
            return
        passed = 0
        while has_body and (block := answer.read(BLOCK_BYTES)):
            self.wfile.write(block)
            passed += len(block)
            self.network.pass_block("down", passed)

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        """End the connection as a broken one ends: no FIN, but RST."""
        self.close_connection = True
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    network: Network

    def shutdown_request(self, request: "socket.socket | tuple[bytes, socket.socket]") -> None:
        with suppress(OSError):  # it has been reset
            super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        # A ValueError is a file's that was closed with its connection.
        if error is not None and not isinstance(error, OSError | ValueError):
            self.network.failures.append(error)


@contextmanager
def proxy(target: str, seed: int = 0) -> Iterator[Network]:
    """A proxy before `target`, an `http://` endpoint, for as long as the context lasts."""
    network = Network(target, seed)
    handler = type("Handler", (_Handler,), {"network": network})
    server = _Server(("127.0.0.1", 0), handler)
    server.network = network
    network.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    thread.start()
    try:
        yield network
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not network.failures, network.failures
