"""SECURITY.md says what is so: its limits are those of the code."""

import re

from conftest import ROOT

import watchdog_app

SECURITY = (ROOT / "SECURITY.md").read_text()
KIB = 1024
LIMITS = {
    "request line": (watchdog_app.MAX_LINE, 64 * KIB, "64 KiB"),
    "method": (watchdog_app.MAX_METHOD, 32, "32 bytes"),
    "header fields, and trailer fields": (watchdog_app.MAX_FIELDS, 200, "200"),
    "time from a head's first byte to its last": (watchdog_app.HEAD_SECONDS, 10, "10 s"),
    "bodies of all requests together, and JSON and files made of them": (
        watchdog_app.BODY_SHARE,
        4,
        "a quarter of the memory, or `body_memory`",
    ),
    "line of a chunk's size": (watchdog_app.MAX_CHUNK_LINE, 256, "256 bytes"),
    "rate of a body after that time, on average": (watchdog_app.BODY_RATE, KIB, "1 KiB a second"),
    "what is discarded after a refusal": (
        (watchdog_app.LINGER_BYTES, watchdog_app.LINGER_SECONDS),
        (16 * KIB * KIB, 2),
        "16 MiB, 2 s",
    ),
    "query parameters, form fields with files, cookies, each": (watchdog_app.MAX_PARAMETERS, 1000, "1000"),
    "headers of a file or field in a multipart form": (
        (watchdog_app.MAX_PART_FIELDS, watchdog_app.MAX_PART_HEAD),
        (10, 4 * KIB),
        "10, 4 KiB",
    ),
    "connections that wait to be accepted": (watchdog_app.BACKLOG, 1024, "1024"),
    "line of the log": (watchdog_app.LOG_LINE, 60 * KIB, "60 KiB"),
    "text of a record, and its traceback": (watchdog_app.LOG_LINE, 60 * KIB, "60 KiB"),
    "time that output waits for its reader": (watchdog_app.LOG_PATIENCE, 5, "5 s"),
}


def limits():
    """Return the rows of the table of limits: what -> (limit, setting)."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| *(?:`(\w+)` *)?\|$", SECURITY.partition("## Limits")[2], re.MULTILINE
    )
    return {what.strip(): (limit.strip(), setting) for what, limit, setting in rows if what != "what"}


def test_limits_are_those_of_the_code():
    fixed = {what: limit for what, (limit, setting) in limits().items() if not setting}
    assert fixed == {what: text for what, (_, _, text) in LIMITS.items()}
    for what, (value, expected, _) in LIMITS.items():
        assert value == expected, what


def test_limits_that_are_settings_are_their_defaults():
    for limit, setting in limits().values():
        if setting:
            number, unit = re.fullmatch("([0-9]+) ?(.*)", limit).groups()
            default = watchdog_app.SETTINGS[setting][1]
            assert default == number + {"KiB": "KB", "MiB": "MB"}.get(unit, unit), setting


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall("`make ([a-z-]+)`", SECURITY):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_exist():
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", SECURITY):
        assert (ROOT / link).exists(), link


def test_caches_stay_small_whatever_callers_send(log):
    expectation = watchdog_app.Expectation()
    for number in range(3000):
        for text in (f"x{number}", f"x{number}" + "y" * 500):
            for _ in range(2):  # what comes once is not remembered
                watchdog_app.STATUS_BYTES[f"200 {text}"]
                watchdog_app.parse_head(f"GET /{text} HTTP/1.1\r\nHost: {text}\r\n{text}: {text}".encode())
            watchdog_app.to_response({"body": "", "statusCode": 200, "headers": {text: text}, text: ""})
            expectation.note(f"/{text}?{text}", 1.0)
    names = ("REQUEST_LINES", "FIELDS", "ENVIRON_KEYS", "FIELD_LINES", "STATUS_BYTES", "WARNED")
    for cache in (*(getattr(watchdog_app, name) for name in names), expectation.paths):
        assert 0 < len(cache) <= watchdog_app.CACHE_ENTRIES
        assert max(len(str(key)) for key in cache) < 300
