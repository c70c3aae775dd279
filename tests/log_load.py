"""Let one call log much, and see how long the calls of another connection wait meanwhile.

    python tests/log_load.py --megabytes 1 10 100

The server is a process of its own, and `cat` reads its output. Each way of the function to log, and each length of a line, is a row:
what it logs a second, and how long the others wait: the median, 99 of 100, and the longest. Records are cut, so their rate says little.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import Process, process, read_answer, wait_for

PATIENCE = 600.0  # seconds that the measuring waits for the call that logs
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
WAYS = ("print", "binary", "logging", "traceback", "json")
FUNCTION = """
import logging, sys

TEXTS = {}

def handle(event, context):
    if event.method == "GET":
        return "x"
    size, length, letter = event.text.split()
    key = int(size), int(length), letter
    if key not in TEXTS:  # made before it is measured
        line = letter * (key[1] // len(letter.encode())) + "\\n"
        TEXTS.clear()
        TEXTS[key] = line * max(key[0] // len(line.encode()), 1)
    text = TEXTS[key]
    if event.path == "/print":
        print(text)
    if event.path == "/binary":
        sys.stdout.buffer.write(text.encode())
    if event.path in ("/logging", "/json"):
        logging.warning("%s", text)
    if event.path == "/traceback":
        raise ValueError(text)
"""


class Outcome(NamedTuple):
    seconds: float  # that the call took which logs
    waits: list[float]  # of the calls of the other connection, in ascending order

    def wait(self, share: float) -> float:
        return self.waits[min(int(len(self.waits) * share), len(self.waits) - 1)]


def exchange(sock: socket.socket, request: bytes) -> int:
    """Send a request; return the status of its answer."""
    sock.sendall(request)
    received = sock.recv(65536)
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536)
    return read_answer(received)[0].status


@contextlib.contextmanager
def loud_server(way: str) -> Iterator[Process]:
    """Run the function in a process, whose output is read all the time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "handler.py"
        file.write_text(FUNCTION)
        with process(file, log_format="json" if way == "json" else "text") as server:
            outputs = (server.popen.stdout, server.popen.stderr)
            readers = [subprocess.Popen(["cat"], stdin=output, stdout=subprocess.DEVNULL) for output in outputs]
            try:
                wait_for(server.answers, "an answer")
                yield server
            finally:
                server.popen.kill()
                for reader in readers:
                    reader.wait()


def measure(
    server: Process, way: str, size: int, length: int, letter: str = "é", patience: float = PATIENCE
) -> Outcome:
    """Let a call log `size` bytes in lines of `length`, while another connection asks for something short over and over."""
    body = f"{size} {length} {letter}".encode()
    head = "POST /{} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n"
    took: list[float] = []

    def log(loud: socket.socket) -> None:
        began = time.monotonic()
        exchange(loud, head.format(way, len(body)).encode() + body)
        took.append(time.monotonic() - began)

    with socket.create_connection(("127.0.0.1", server.port), patience) as loud:
        exchange(loud, head.format("make", len(body)).encode() + body)
        with socket.create_connection(("127.0.0.1", server.port), patience) as other:
            thread = threading.Thread(target=log, args=(loud,))
            thread.start()
            waits = []
            while not waits or thread.is_alive():
                began = time.monotonic()
                exchange(other, GET)
                waits.append(time.monotonic() - began)
            thread.join()
    if not took:
        raise TimeoutError(f"the call did not end within {patience} s")
    return Outcome(took[0], sorted(waits))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--lines", type=int, nargs="+", default=[1, 100, 30_000, 1_000_000], help="bytes of a line")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--letter", default="x", help="what the lines consist of, such as é")
    options = parser.parse_args(arguments)
    print(
        f"{'way':10} {'MB':>4} {'line':>8} {'seconds':>8} {'MB/s':>7} {'median ms':>10} {'p99 ms':>7} {'longest':>8} calls"
    )
    for way in options.ways:
        with loud_server(way) as server:
            for megabytes in options.megabytes:
                for length in options.lines:
                    done = measure(server, way, megabytes * 1_000_000, length, options.letter)
                    waits = " ".join(
                        f"{done.wait(share) * 1000:>{width}.1f}" for share, width in ((0.5, 10), (0.99, 7), (1, 8))
                    )
                    rate = f"{done.seconds:8.2f} {megabytes / done.seconds:7.0f}"
                    print(f"{way:10} {megabytes:4} {length:8} {rate} {waits} {len(done.waits)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
