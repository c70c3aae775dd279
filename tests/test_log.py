"""What the function prints and what the module logs: it appears at once, line by line, and can hurt nobody."""

import io
import json
import os
import re
import select
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import log_load
import pytest
from conftest import DEADLINE, call, connect_and_get, process, serving, wait_for

import watchdog_app
from watchdog_app import LOG_LINE, Output

WATCHDOG_LINE = 64 * 1024  # bytes, above which of-watchdog reads no more


class Pipe:
    """A pipe with an Output at its one end, and what came out of the other."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        self.output = Output(self.writer, "<test>")
        self.received, self.thread = b"", threading.Thread(target=self._read)

    def _read(self):
        while piece := os.read(self.reader, 65536):
            self.received += piece

    def collect(self):
        """Begin to read."""
        self.thread.start()

    def end(self):
        """Close the writing end; return all that came."""
        os.close(self.writer)
        if self.thread.ident is None:
            self.collect()
        self.thread.join(DEADLINE)
        return self.received


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    for fd in (pipe.reader, pipe.writer):
        try:
            os.close(fd)
        except OSError:
            pass


def text_output(pipe):
    return io.TextIOWrapper(pipe.output, "utf-8", line_buffering=True)


# ---- long lines ----


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x" * 200_000 + b"\n", id="letters"),
        pytest.param(b"x" * LOG_LINE + b"y\n", id="one byte too long"),
        pytest.param("é€😀".encode() * 20_000 + b"\n", id="UTF-8"),
        pytest.param(b"x" + "😀".encode() * 20_000 + b"\n", id="UTF-8, moved by one"),
        pytest.param(b"\x80" * 200_000 + b"\n", id="continuation bytes alone"),
        pytest.param(bytes(byte for byte in range(256) if byte != 10) * 1000, id="every byte, no end"),
        pytest.param(b"short\n" + b"x" * 100_000 + b"\nshort\n\n" + b"y" * 100_000, id="between short ones"),
    ],
)
@pytest.mark.parametrize("step", [pytest.param(None, id="in one write"), pytest.param(7001, id="in many writes")])
def test_a_long_line_is_broken_and_nothing_of_it_lost(data, step, pipe):
    pipe.collect()
    for start in range(0, len(data), step or len(data)):
        piece = data[start : start + (step or len(data))]
        assert pipe.output.write(piece) == len(piece)
    received = pipe.end()
    assert received.replace(b"\n", b"") == data.replace(b"\n", b"")
    assert max(map(len, received.split(b"\n"))) < WATCHDOG_LINE


def test_utf_8_is_not_broken_within_a_character(pipe):
    pipe.collect()
    with text_output(pipe) as output:
        print("a" + "😀" * 50_000, file=output)
    lines = pipe.end().splitlines()
    assert len(lines) == 4
    assert "".join(line.decode() for line in lines) == "a" + "😀" * 50_000


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x\n" * 100_000, id="short lines"),
        pytest.param(b"x" * (LOG_LINE - 4) + b"\n", id="a line of nearly the limit"),
        pytest.param((b"x" * LOG_LINE + b"\n") * 3, id="lines of the limit"),
        pytest.param(b"x\n" + b"y" * LOG_LINE, id="a line of the limit, without an end"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_lines_within_the_limit_are_left_alone(data, pipe):
    pipe.collect()
    pipe.output.write(data)
    assert pipe.end() == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_written(kind, pipe):
    pipe.output.write(kind(b"x\n"))
    assert pipe.end() == b"x\n"


def test_long_text_takes_as_long_whatever_its_lines():
    with (
        open(os.devnull, "wb") as nowhere,
        watchdog_app.TextOutput(Output(nowhere.fileno(), "<nowhere>"), "utf-8", line_buffering=True) as output,
    ):

        def seconds(line):
            text = line * (300_000 // len(line))
            began = time.thread_time()
            output.write(text)
            return time.thread_time() - began

        few, many = (min(seconds("é" * length + "\n") for _ in range(3)) for length in (15_000, 100))
    assert few < 6 * many + 0.005


@pytest.mark.parametrize("way", log_load.WAYS)
def test_call_that_logs_much_holds_up_no_other(way):
    with log_load.loud_server(way) as server:
        done = log_load.measure(server, way, size=10_000_000, length=30_000, patience=DEADLINE)
    assert done.seconds < 5  # about 0.05
    assert done.wait(0.99) < 0.5  # about 0.002


def test_long_text_is_written_whole_and_lines_of_other_threads_stand_between_its_lines(pipe):
    pipe.collect()
    output = watchdog_app.TextOutput(pipe.output, "utf-8", line_buffering=True)
    long_ones = ("é" * 70_000 + "\n") * 3 + "é" * 70_000
    threads = [threading.Thread(target=output.write, args=(long_ones.replace("é", letter) + "\n",)) for letter in "éxâ"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    lines = pipe.end().decode().splitlines()
    assert {letter: "".join(lines).count(letter) for letter in "éxâ"} == dict.fromkeys("éxâ", 280_000)
    assert {len(set(line)) for line in lines} == {1}
    assert max(len(line.encode()) for line in lines) <= LOG_LINE


def test_a_terminal_is_one(pipe):
    terminal, other_end = os.openpty()
    try:
        assert (Output(terminal, "<test>").isatty(), pipe.output.isatty()) == (True, False)
    finally:
        os.close(terminal)
        os.close(other_end)


def test_lines_of_many_threads_stay_whole(pipe):
    pipe.collect()

    def write(letter):
        for _ in range(200):
            pipe.output.write(letter * 5000 + b"\n")

    threads = [threading.Thread(target=write, args=(bytes([letter]),)) for letter in b"abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    lines = pipe.end().splitlines()
    assert len(lines) == 1200
    assert {len(set(line)) for line in lines} == {1}


# ---- nobody takes it ----


def test_a_full_pipe_holds_up_nobody_and_what_was_lost_is_said(pipe, monkeypatch):
    monkeypatch.setattr(watchdog_app, "LOG_PATIENCE", 0.05)
    began = time.monotonic()
    for _ in range(100):
        pipe.output.write(b"x" * 9999 + b"\n")
    assert time.monotonic() - began < 2
    assert pipe.output.lost > 0
    kept = 1_000_000 - pipe.output.lost
    os.read(pipe.reader, 65536)
    pipe.output.write(b"again\n")
    received = pipe.end()
    assert received.endswith(b"\nWARNING %d bytes of output are lost: nobody read them\nagain\n" % (1_000_000 - kept))


def test_a_reader_that_comes_in_time_gets_all(pipe):
    writer = threading.Thread(target=pipe.output.write, args=(b"x\n" * 200_000,))
    writer.start()
    wait_for(lambda: not select.select((), (pipe.writer,), (), 0)[1], "a full pipe")
    pipe.collect()
    writer.join(DEADLINE)
    assert pipe.end() == b"x\n" * 200_000


def test_a_broken_pipe_is_survived(pipe):
    os.close(pipe.reader)
    assert pipe.output.write(b"x\n") == 2
    assert pipe.output.write(b"x\n") == 2


def test_a_closed_descriptor_is_survived():
    reader, writer = os.pipe()
    output = Output(writer, "<closed>")
    os.close(reader)
    os.close(writer)
    assert output.write(b"x\n") == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_survived():
    with open("/dev/full", "wb", buffering=0) as full:
        output = Output(full.fileno(), "<full>")
        assert output.write(b"x\n") == 2
        assert output.lost == 2


def test_a_child_process_can_print_whatever_its_parents_threads_did(pipe):
    held, release = threading.Event(), threading.Event()

    def hold():
        with pipe.output.lock:
            held.set()
            release.wait(DEADLINE)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(DEADLINE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, which is what this is about
        pid = os.fork()
    if not pid:
        pipe.output.write(b"child\n")
        os._exit(0)
    wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0], "the end of the child")
    release.set()
    thread.join(DEADLINE)
    assert pipe.end() == b"child\n"


def test_a_signal_handler_may_print_while_the_code_that_it_interrupts_does(pipe):
    def handler(number, frame):
        pipe.output.write(b"handler\n")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pipe.output.lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert pipe.end() == b"handler\n"


# ---- records ----


def failing(text):
    def handle(event, context):
        raise ValueError(text or event.text)

    return handle


def test_a_failed_call_is_one_write(monkeypatch):
    writes = []

    class Recorder(io.StringIO):
        def write(self, text):
            writes.append(text)
            return len(text)

    monkeypatch.setattr("sys.stderr", Recorder())
    call(failing("no"), "POST", body=b"x")
    assert len(writes) == 1
    assert "ValueError: no" in writes[0]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x\nERROR call 1 GET / failed", id="LF"),
        pytest.param("x\r\nERROR call 1 GET / failed", id="CR LF"),
        pytest.param("x\rERROR call 1 GET / failed", id="CR"),
        pytest.param("x\x85ERROR call 1 GET / failed", id="NEL"),
        pytest.param("x\u2028ERROR call 1 GET / failed", id="line separator"),
        pytest.param("\x1b[2J\x1b]0;title\x07\x9b31m", id="a terminal's commands"),
        pytest.param("\x00\x08\x0b\x0c\x7f", id="control characters"),
        pytest.param("\ud800", id="a lone surrogate"),
    ],
)
def test_text_of_a_request_passes_for_no_record_and_no_command(text, log):
    call(failing(text))
    record = log.getvalue()
    assert record.endswith("\n")
    first, *others = record.split("\n")
    assert first.startswith("ERROR call ")
    assert all(line.startswith("  ") for line in others if line)
    assert re.search(r"[^\n\t -~]", ascii(record).replace("\\n", "\n").replace("\\u", "u")) is None
    assert not set(record) & {
        chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029) if code not in (9, 10)
    }


def test_a_request_that_fails_outside_the_function_is_escaped_too(log):
    with serving(lambda event, context: [float("nan")]) as server:
        server.talk(
            "GET /\xff\x9b HTTP/1.1\r\nHost: test\r\nX-Call-Id: a\x9bb\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
    assert log.getvalue().isascii()


def raised_in_a_group(text):
    try:
        raise ValueError(text)
    except ValueError:
        raise ExceptionGroup("group", [KeyError("second"), ValueError(text)]) from None


def raised_with_a_cause(text):
    try:
        raise ValueError(text)
    except ValueError as error:
        raise LookupError("second") from error


@pytest.mark.parametrize(
    "line", ["x", "x\n", "\x01\n", "é" * 100 + "\n"], ids=["one line", "short lines", "control characters", "UTF-8"]
)
@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda text: failing(text)(None, None), id="message"),
        pytest.param(raised_with_a_cause, id="message of its cause"),
        pytest.param(raised_in_a_group, id="message in a group"),
    ],
)
def test_long_text_of_an_exception_is_cut_visibly_and_soon(fail, line, log):
    text = line * (4_000_000 // len(line))
    began = time.thread_time()
    call(lambda event, context: fail(text))
    assert time.thread_time() - began < 0.8
    record = log.getvalue()
    assert re.match(r"ERROR call '\w+' 'GET' '/' failed\n", record)
    assert re.search(r"^ *\|? *\.\.\. \d+ more characters \.\.\.$", record, re.MULTILINE)
    assert len(record) < 5 * LOG_LINE


@pytest.mark.parametrize("length", [0, 1, 7, 200_000])
def test_text_is_shortened_in_its_middle(length):
    text = "a" * 99_999 + "b" * 100_001
    head, count, tail = re.fullmatch(
        r"(a*)\n\.\.\. (\d+) more characters \.\.\.\n(b*)", watchdog_app.shortened(text, min(length, 199_999))
    ).groups()
    assert len(head) == len(tail) == min(length, 199_999) // 2
    assert len(head) + int(count) + len(tail) == len(text)
    assert watchdog_app.shortened(text, 200_000) == text


@pytest.mark.parametrize(
    "value", ["x" * 99, "x" * 100, "x" * 10_000_000, b"x" * 98, b"x" * 10_000_000, "é" * 50, "'", None]
)
def test_value_is_clipped_without_a_look_at_the_rest(value):
    text = ascii(value)
    assert watchdog_app.clipped(value) == (text if len(text) <= 100 else text[:97] + "...")


def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert call(failing("no")).status == 500


# ---- the program ----


@pytest.fixture
def program(tmp_path):
    """Run a function's text as a program, make one call, stop it; return what came on stdout and stderr."""

    def run(text):
        file = tmp_path / "handler.py"
        file.write_text(text)
        with process(file) as running, ThreadPoolExecutor() as readers:
            outputs = [readers.submit(stream.read) for stream in (running.popen.stdout, running.popen.stderr)]
            wait_for(running.answers, "an answer")
            running.popen.send_signal(signal.SIGINT)
            return [output.result(DEADLINE).decode() for output in outputs]

    return run


PRINTS = {
    "print": "print(TEXT)",
    "stderr": "print(TEXT, file=sys.stderr)",
    "binary": "sys.stdout.buffer.write(TEXT.encode() + b'\\n')",
    "original": "print(TEXT, file=sys.__stdout__)",
    "thread": "thread = threading.Thread(target=print, args=(TEXT,)); thread.start(); thread.join()",
    "import": "",
}


@pytest.mark.parametrize("statement", PRINTS.values(), ids=PRINTS.keys())
def test_long_lines_of_a_function_are_broken(statement, program):
    text = "import sys, threading\nTEXT = 'é' * 100_000\nprint(TEXT)\ndef handle(event, context):\n    "
    out, err = program(text + (statement or "pass"))
    assert max(len(line.encode()) for line in (out + err).split("\n")) < WATCHDOG_LINE
    assert (out + err).count("é") == (200_000 if statement else 100_000)


def test_record_of_text_is_cut_visibly(program):
    _, err = program("import logging\ndef handle(event, context):\n    logging.info('x' * 200_000)\n")
    head, count, tail = re.search(r"root: (x+)\n  \.\.\. (\d+) more characters \.\.\.\n  (x+)\n", err).groups()
    assert len(head) + int(count) + len(tail) == 200_000


def test_what_is_printed_appears_at_once(tmp_path):
    file = tmp_path / "handler.py"
    file.write_text("import time\nprint('now')\ntime.sleep(1000)")
    with process(file) as running:
        assert select.select([running.popen.stdout], [], [], DEADLINE)[0]
        assert os.read(running.popen.stdout.fileno(), 100) == b"now\n"


def test_a_thread_that_fails_is_one_record(program):
    _, err = program(
        "import threading\ndef fail():\n    raise ValueError('in a thread\\nERROR forged')\ndef handle(event, context):\n"
        "    thread = threading.Thread(target=fail, name='mine')\n    thread.start()\n    thread.join()"
    )
    assert re.search(r"ERROR call '\w+' thread 'mine' failed\n  Traceback", err)
    assert "ValueError: in a thread\n  ERROR forged\n" in err


THREADS = {
    "call": "def handle(event, context):\n    start()\n    return {context.call_id: 1}",
    "thread of a thread": "def handle(event, context):\n    start(start)\n    return {context.call_id: 1}",
    "coroutine": "async def handle(event, context):\n    start()\n    return {context.call_id: 1}",
    "task": "import asyncio\nasync def handle(event, context):\n    await asyncio.to_thread(start)\n    return {context.call_id: 1}",
    "first item": "def handle(event, context):\n    start()\n    yield {context.call_id: 1}",
    "later item": "def handle(event, context):\n    yield {context.call_id: 1}\n    start()",
    "async item": "async def handle(event, context):\n    yield {context.call_id: 1}\n    start()",
    "WSGI application": "import json\ndef handle(event, context):\n    def application(environ, start_response):\n        start()\n"
    "        start_response('200 OK', [])\n        return [json.dumps({context.call_id: 1}).encode()]\n    return application",
}
START_THREAD = """
import threading

def fail():
    raise ValueError("in a thread")

def start(target=fail):
    thread = threading.Thread(target=target, name="mine")
    thread.start()
    thread.join()

"""


@pytest.mark.parametrize("imports", ["", "import logging\n"], ids=["without logging", "with logging"])
@pytest.mark.parametrize("source", THREADS.values(), ids=THREADS.keys())
def test_thread_that_fails_is_one_record_with_the_call_that_started_it(source, imports, tmp_path):
    file = tmp_path / "handler.py"
    file.write_text(imports + START_THREAD + source)
    with process(file) as running:
        wait_for(running.answers, "an answer")
        (call_id,) = json.loads(connect_and_get(running.port))
        running.popen.send_signal(signal.SIGINT)
        _, err = running.end()
    records = re.findall(r"^ERROR.*\n(?:  .*\n)+", err, re.MULTILINE)
    assert len(records) == 2
    assert records[1].startswith(
        f"ERROR call '{call_id}' thread 'mine' failed\n  Traceback (most recent call last):\n    File \"{file}\""
    )
    assert records[1].count("ValueError: in a thread") == 1


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("threading.Thread(target=STOP.wait, daemon=True).start()", id="thread"),
        pytest.param("ThreadPoolExecutor(1).submit(STOP.wait)", id="pool"),
    ],
)
def test_thread_that_lives_on_holds_nothing_of_its_call(start, program):
    _, err = program(
        "import gc, sys, threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "STOP, LOOKS = threading.Event(), []\ndef handle(event, context):\n"
        f"    {start}\n"
        "    LOOKS.append(threading.Timer(0.0, look, (type(context),)))\n    LOOKS[-1].start()\n"
        "def look(kind):\n    while any(type(one) is kind and 'wsgi.input' in one._environ for one in gc.get_objects()):\n        pass\n"
        "    print('gone', file=sys.stderr)\n"
        "def shutdown(context):\n    LOOKS[0].join(5)\n"
    )
    assert "gone" in err


def test_a_thread_that_exits_is_no_failure(program):
    _, err = program(
        "import sys, threading\ndef handle(event, context):\n    thread = threading.Thread(target=sys.exit)\n    thread.start()\n    thread.join()"
    )
    assert "ERROR" not in err


@pytest.mark.parametrize(
    "closing",
    ["sys.stderr = None", "sys.stdout = sys.stderr = None"],
)
@pytest.mark.parametrize("when", ["at import", "in a call"])
def test_what_fails_is_logged_though_the_function_has_taken_stderr_away(closing, when, tmp_path):
    at_import, in_call = (closing, "pass") if when == "at import" else ("pass", closing)
    file = tmp_path / "handler.py"
    file.write_text(f"import sys\n{at_import}\ndef handle(event, context):\n    {in_call}\n    1 / 0\n")
    with process(file) as running:
        wait_for(running.answers, "an answer")
        assert running.answers()
        running.popen.send_signal(signal.SIGINT)
        status, err = running.end()
    assert (status, err.count("ZeroDivisionError")) == (0, 2)


@pytest.mark.parametrize("closing", ["sys.stderr.close()", "sys.stderr = sys.stdout = None"])
def test_a_function_that_takes_the_outputs_away_runs(closing, tmp_path):
    file = tmp_path / "handler.py"
    file.write_text(f"import sys\ndef handle(event, context):\n    print('x')\n    1 / 0\n{closing}")
    with process(file) as running:
        wait_for(running.answers, "an answer")
        assert running.answers()
