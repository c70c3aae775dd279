"""Play of-watchdog's part in HTTP mode, where the real one is not on PATH: `python watchdog_standin.py`, with the same environment variables.

It starts `fprocess` with a pipe as stdin, proxies each call to `upstream_url` with a chunked body, answers `/_/health` and `/_/ready` by the
lock file, and at SIGTERM does what of-watchdog 0.11.6 does: signals the child, removes the lock file, goes on accepting for
`healthcheck_interval`, waits at most `write_timeout` for its callers, then leaves with status 0 and the child without a parent, if it is not
process 1. A child that ends with an error ends it at once.
"""

import http.client
import os
import select
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

UPSTREAM = urlsplit(os.environ["upstream_url"]).netloc
IN_FLIGHT = set()  # connections that are new, or whose request is not answered yet
LONGEST_LINE = 64 * 1024
LOCK = os.path.join(os.environ.get("TMPDIR", "/tmp"), ".lock")


def seconds(name):
    return float(os.environ.get(name, "30s").removesuffix("s"))


class Proxy(BaseHTTPRequestHandler):
    """One connection of a caller."""

    protocol_version = "HTTP/1.1"
    timeout = seconds("read_timeout")

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    def proxy(self):
        IN_FLIGHT.add(self.connection)
        self.proxied()
        IN_FLIGHT.discard(self.connection)

    def proxied(self):
        body = self.read_body()
        if self.path in ("/_/health", "/_/ready"):  # Go's net/http, too, reads the body before it answers
            return self.answer(405 if self.command != "GET" else 200 if os.path.exists(LOCK) else 503)
        upstream = http.client.HTTPConnection(UPSTREAM, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding"):
                    upstream.putheader(name, value)
            if body is not None:
                upstream.putheader("Transfer-Encoding", "chunked")
            upstream.endheaders([body] if body else None, encode_chunked=body is not None)
            response = upstream.getresponse()
            headers = [
                pair
                for pair in response.getheaders()
                if pair[0].lower() not in ("content-length", "transfer-encoding", "date", "server")
            ]
            self.answer(response.status, headers, response.read())
        except OSError:
            self.answer(500)
        finally:
            upstream.close()

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            length = self.headers.get("Content-Length")
            return None if length is None else self.rfile.read(int(length))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def finish(self):
        IN_FLIGHT.discard(self.connection)
        super().finish()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = proxy

    def log_message(self, *arguments):
        pass


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def process_request(self, request, client_address):
        IN_FLIGHT.add(request)
        super().process_request(request, client_address)


def pump(source, target):
    while (line := source.readline(LONGEST_LINE + 1)) and len(
        line
    ) <= LONGEST_LINE:  # a longer one ends the reading for good
        target.write(line)
        target.flush()


def end_with_child(child):
    if child.wait() != 0:
        time.sleep(0.1)
        os._exit(1)


def main():
    child = subprocess.Popen(
        os.environ["fprocess"].split(" "), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for source, target in ((child.stdout, sys.stdout.buffer), (child.stderr, sys.stderr.buffer)):
        threading.Thread(target=pump, args=(source, target), daemon=True).start()
    threading.Thread(target=end_with_child, args=(child,), daemon=True).start()
    listener = Listener(("", int(os.environ.get("port", "8080"))), Proxy)
    stopped = []

    def stop(number, frame):
        child.send_signal(signal.SIGTERM)
        if os.path.exists(LOCK):
            os.unlink(LOCK)
        stopped.append(number)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    while not stopped:
        time.sleep(0.01)
    time.sleep(seconds("healthcheck_interval"))
    listener.shutdown()
    while select.select([listener], [], [], 0)[0]:
        listener.handle_request()
    listener.server_close()
    end = time.monotonic() + seconds("write_timeout")
    while IN_FLIGHT and time.monotonic() < end:
        time.sleep(0.01)
    sys.stdout.flush()
    time.sleep(0.2)
    os._exit(0)


if __name__ == "__main__":
    if "-run-healthcheck" in sys.argv:
        sys.exit(0 if os.path.exists(LOCK) else 1)
    main()
