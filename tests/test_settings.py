"""Environment variables -> Settings."""

import re

import pytest
from conftest import ROOT, serving

from watchdog_app import SETTINGS, Settings, SettingsError, address, count, duration, go_duration, size, switch

HOSTILE = [
    pytest.param("1e9", id="exponent"),
    pytest.param("+1", id="plus"),
    pytest.param("-1", id="minus"),
    pytest.param("²", id="superscript"),
    pytest.param("٣", id="arabic digit"),
    pytest.param("\uff11", id="fullwidth digit"),
    pytest.param(" 10", id="space before"),
    pytest.param("10 ", id="space behind"),
    pytest.param("10\n", id="line end behind"),
    pytest.param("1_0", id="underscore"),
    pytest.param("0x10", id="hexadecimal"),
    pytest.param("1,5", id="comma"),
    pytest.param("nan", id="nan"),
    pytest.param("inf", id="infinity"),
    pytest.param("9" * 5000, id="5000 digits"),
    pytest.param("true", id="a word"),
    pytest.param("\0", id="nul"),
    pytest.param("\udc80", id="undecodable byte"),
]


# -- durations --


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("0", 0.0, id="zero"),
        pytest.param("1ns", 1e-9, id="nanoseconds"),
        pytest.param("1us", 1e-6, id="microseconds"),
        pytest.param("1µs", 1e-6, id="microseconds, micro sign"),
        pytest.param("1μs", 1e-6, id="microseconds, greek letter"),
        pytest.param("500ms", 0.5, id="milliseconds"),
        pytest.param("10s", 10.0, id="seconds"),
        pytest.param("2m", 120.0, id="minutes"),
        pytest.param("3h", 10800.0, id="hours"),
        pytest.param("1m30s", 90.0, id="minutes and seconds"),
        pytest.param("1h2m3s4ms5us6ns", 3723.004005006, id="all units"),
        pytest.param("30s1m", 90.0, id="small unit first"),
        pytest.param("1s1s", 2.0, id="a unit twice"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param(".5s", 0.5, id="no digit before the point"),
        pytest.param("5.s", 5.0, id="no digit behind the point"),
        pytest.param("0s", 0.0, id="zero with a unit"),
    ],
)
def test_a_go_duration_is_converted_to_seconds(text, seconds):
    assert go_duration(text) == pytest.approx(seconds, rel=1e-12)
    assert duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "10",
        "",
        "s",
        ".s",
        "1",
        "1d",
        "1S",
        "1 s",
        "1s ",
        "1s1",
        "1s-1s",
        "1.2.3s",
        "1e3s",
        "+1s",
        "1_0s",
        "²s",
        "1s\n",
        "9" * 80 + "s",
    ],
)
def test_what_is_no_go_duration_is_refused(text):
    with pytest.raises(ValueError, match="a duration such as"):
        go_duration(text)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("10", 10), ("007", 7), ("999999999", 999999999)])
def test_plain_digits_are_seconds(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="a duration such as"):
        duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0.0h", "0ms", "000"])
def test_no_time_at_all_is_no_write_timeout(text):
    with pytest.raises(SettingsError, match="above 0"):
        Settings(write_timeout=text)


# -- sizes, numbers, booleans --


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("1", 1, id="one byte"),
        pytest.param("4096", 4096, id="no unit"),
        pytest.param("10B", 10, id="bytes"),
        pytest.param("256KB", 256 << 10, id="kilobytes"),
        pytest.param("256kb", 256 << 10, id="lower case"),
        pytest.param("2K", 2 << 10, id="one letter"),
        pytest.param("2KiB", 2 << 10, id="binary unit"),
        pytest.param("100MB", 100 << 20, id="megabytes"),
        pytest.param("3GB", 3 << 30, id="gigabytes"),
    ],
)
def test_a_size_is_converted_to_bytes(text, number):
    assert size(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        pytest.param("", id="empty"),
        pytest.param("MB", id="no number"),
        pytest.param("1.5MB", id="fraction"),
        pytest.param("1 MB", id="space within"),
        pytest.param("1TB", id="unknown unit"),
        pytest.param("1MBs", id="letter behind"),
        pytest.param("1BB", id="unit twice"),
        pytest.param("1BiB", id="bytes of bytes"),
        pytest.param("1iB", id="half a unit"),
        pytest.param("1\u212a", id="kelvin sign for k"),
        pytest.param("1K\u0131B", id="dotless i"),
    ],
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="a size "):
        size(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1", 1), ("512", 512), ("007", 7)])
def test_a_whole_number_is_converted(text, number):
    assert count(text) == number


@pytest.mark.parametrize(
    "text",
    [*HOSTILE, pytest.param("", id="empty"), pytest.param("1.0", id="fraction"), pytest.param("1s", id="a duration")],
)
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ValueError, match="a whole number"):
        count(text)


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        ("threads", "0", "above 0"),
        ("threads", "000", "above 0"),
        ("max_body", "0", "above 0"),
        ("max_body", "0MB", "above 0"),
        ("max_head", "0", "above 0"),
    ],
)
def test_zero_is_refused_where_nothing_would_work_with_it(name, text, takes):
    with pytest.raises(SettingsError, match=takes):
        Settings(**{name: text})


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, True) for text in ("1", "t", "T", "true", "True", "TRUE")]
    + [(text, False) for text in ("0", "f", "F", "false", "False", "FALSE")],
)
def test_gos_booleans_are_converted(text, value):
    assert switch(text) is value


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "2", "10", " true", "true\n", "trueé", "¹"])
def test_what_is_no_boolean_is_refused(text):
    with pytest.raises(ValueError, match="true or false"):
        switch(text)


# -- addresses --


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        pytest.param("http://127.0.0.1:5000", ("127.0.0.1", 5000), id="url"),
        pytest.param("http://127.0.0.1:5000/", ("127.0.0.1", 5000), id="url with a slash"),
        pytest.param("127.0.0.1:5000", ("127.0.0.1", 5000), id="no scheme"),
        pytest.param("http://localhost:80", ("localhost", 80), id="name"),
        pytest.param("http://[::1]:5000", ("::1", 5000), id="ipv6"),
        pytest.param("[::]:8080", ("::", 8080), id="ipv6, no scheme"),
        pytest.param("[::ffff:127.0.0.1]:8080", ("::ffff:127.0.0.1", 8080), id="ipv4 in ipv6"),
        pytest.param("127.0.0.1:0", ("127.0.0.1", 0), id="any port"),
        pytest.param("127.0.0.1:65535", ("127.0.0.1", 65535), id="last port"),
    ],
)
def test_an_address_is_converted_to_host_and_port(text, pair):
    assert address(text) == pair


@pytest.mark.parametrize(
    "text",
    [
        "", "5000", "127.0.0.1", "http://127.0.0.1", "http://:5000", "https://127.0.0.1:5000", "HTTP//127.0.0.1:5000", "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:+80", "127.0.0.1:²", "127.0.0.1:8_0", "127.0.0.1: 80", " 127.0.0.1:80", "127.0.0.1:80\n", "127.0.0.1:80/path", "::1:5000",
        "[::1:5000", "[]:5000", "[::1]5000", "[localhost]:5000", "a b:80", "http://http://a:80", "unix:/tmp/socket",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="an address such as"):
        address(text)


# -- Settings --


def test_without_variables_the_defaults_hold():
    settings = Settings.from_env({})
    assert (settings.host, settings.port) == ("127.0.0.1", 5000)
    assert settings.exec_timeout is None
    assert (settings.read_timeout, settings.write_timeout, settings.healthcheck_interval) == (30.0, 30.0, 30.0)
    assert (settings.suppress_lock, settings.ready_on, settings.debug) == (False, "listen", False)
    assert (settings.threads, settings.max_body, settings.max_head, settings.keep_alive) == (
        512,
        100 << 20,
        256 << 10,
        120.0,
    )
    assert (settings.log_level, settings.log_format, settings.secret_dir) == (20, "text", "/var/openfaas/secrets")


def test_every_variable_is_read_from_the_mapping():
    env = {
        "upstream_url": "http://a:1", "http_upstream_url": "http://[::1]:81", "exec_timeout": "1m30s", "read_timeout": "10", "write_timeout": "500ms",
        "healthcheck_interval": "0", "max_inflight": "7", "suppress_lock": "true", "ready_on": "startup", "threads": "8", "max_body": "1GB",
        "max_head": "64KB", "keep_alive": "2h", "log_level": "error", "log_format": "json", "debug": "1", "secret_dir": "./secrets",
        "body_memory": "2GB", "PORT": "8080",
    }  # fmt: skip
    assert env.keys() == SETTINGS.keys()
    settings = Settings.from_env(env)
    assert (settings.host, settings.port, settings.exec_timeout, settings.read_timeout, settings.write_timeout) == (
        "::1",
        81,
        90.0,
        10.0,
        0.5,
    )
    assert (settings.healthcheck_interval, settings.suppress_lock, settings.ready_on, settings.threads) == (
        0.0,
        True,
        "startup",
        7,
    )
    assert (settings.max_body, settings.body_memory) == (1 << 30, 2 << 30)
    assert (settings.max_head, settings.keep_alive, settings.debug) == (64 << 10, 7200.0, True)
    assert (settings.log_level, settings.log_format, settings.secret_dir) == (40, "json", "./secrets")


@pytest.mark.parametrize("name", SETTINGS)
def test_an_empty_value_is_the_default(name):
    assert vars(Settings.from_env({name: ""})) == vars(Settings())


def test_unknown_names_in_the_mapping_are_left_alone():
    env = {"PATH": "/bin", "THREADS": "x", "Max_Body": "x", "max-body": "x", "fprocess": "python", "keep_alive_": "x"}
    assert vars(Settings.from_env(env)) == vars(Settings())


def test_an_unknown_argument_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match="no such setting: max_boddy"):
        Settings(max_boddy="1MB")


@pytest.mark.parametrize(
    ("name", "value"), [("threads", 5), ("threads", 0), ("debug", True), ("secret_dir", None), ("max_body", b"1MB")]
)
def test_a_value_that_is_no_text_is_an_error_that_names_it(name, value):
    with pytest.raises(SettingsError, match=f"^{name}={value!r} is not valid: it takes text, as in the environment$"):
        Settings(**{name: value})


def test_the_image_sets_what_the_runtime_takes():
    lines = re.findall(r"^ENV (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    settings = Settings.from_env(dict(re.findall(r"(\w+)=(\S+)", " ".join(lines))))
    assert (settings.exec_timeout, settings.suppress_lock, settings.port) == (30.0, True, 5000)
    assert (settings.read_timeout, settings.write_timeout, settings.healthcheck_interval) == (35.0, 35.0, 5.0)


def test_http_upstream_url_wins():
    settings = Settings.from_env({"upstream_url": "http://a:1", "http_upstream_url": "http://b:2"})
    assert (settings.host, settings.port) == ("b", 2)


@pytest.mark.parametrize(
    ("env", "listens"),
    [
        pytest.param({"PORT": "9000"}, ("0.0.0.0", 9000), id="alone"),
        pytest.param({"PORT": ""}, ("127.0.0.1", 5000), id="empty"),
        pytest.param({"PORT": "9000", "upstream_url": ""}, ("0.0.0.0", 9000), id="upstream_url empty"),
        pytest.param({"PORT": "9000", "upstream_url": "http://a:1"}, ("a", 1), id="upstream_url"),
        pytest.param({"PORT": "9000", "http_upstream_url": "http://b:2"}, ("b", 2), id="http_upstream_url"),
        pytest.param({"PORT": "tcp://10.0.0.1:5432", "upstream_url": "http://a:1"}, ("a", 1), id="the function's own"),
    ],
)
def test_port_counts_where_nothing_else_says_where_to_listen(env, listens):
    settings = Settings.from_env(env)
    assert (settings.host, settings.port) == listens


@pytest.mark.parametrize("text", ["0", "65536", "99999", "8080/tcp", "http://127.0.0.1:8080"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(SettingsError, match=r"^PORT=.* it takes a port such as 8080$"):
        Settings.from_env({"PORT": text})


@pytest.mark.parametrize(("name", "value"), [("exec_timeout", None), ("read_timeout", float("inf"))])
@pytest.mark.parametrize("text", ["0", "0s"])
def test_a_timeout_of_zero_is_no_limit(name, value, text):
    assert getattr(Settings.from_env({name: text}), name) == value


def test_healthcheck_interval_follows_write_timeout():
    assert Settings(write_timeout="7s").healthcheck_interval == 7.0
    assert Settings(write_timeout="7s", healthcheck_interval="3s").healthcheck_interval == 3.0


@pytest.mark.parametrize("text", ["90", "90s", "1m30s"])
def test_keep_alive_may_be_as_short_as_the_watchdogs_pool(text):
    assert Settings(keep_alive=text).keep_alive == 90.0


@pytest.mark.parametrize("text", ["0", "89", "89s", "1m29.999s"])
def test_keep_alive_below_the_watchdogs_pool_is_refused(text):
    with pytest.raises(SettingsError, match=r"keep_alive=.*at least 90s"):
        Settings(keep_alive=text)


@pytest.mark.parametrize(
    ("threads", "max_inflight", "expected"),
    [("512", "0", 512), ("512", "4", 4), ("4", "512", 4), ("", "", 512), ("", "1", 1), ("3", "", 3)],
)
def test_threads_are_bounded_by_max_inflight(threads, max_inflight, expected):
    assert Settings(threads=threads, max_inflight=max_inflight).threads == expected


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        pytest.param("upstream_url", "127.0.0.1", "an address such as http://127.0.0.1:5000", id="upstream_url"),
        pytest.param(
            "http_upstream_url", "https://a:1", "an address such as http://127.0.0.1:5000", id="http_upstream_url"
        ),
        pytest.param("exec_timeout", "1d", "a duration such as 10s, 1m30s or 500ms", id="exec_timeout"),
        pytest.param("read_timeout", "ten", "a duration such as 10s, 1m30s or 500ms", id="read_timeout"),
        pytest.param("write_timeout", "0", "a duration above 0, such as 30s", id="write_timeout"),
        pytest.param(
            "healthcheck_interval", "-1s", "a duration such as 10s, 1m30s or 500ms", id="healthcheck_interval"
        ),
        pytest.param("max_inflight", "many", "a whole number", id="max_inflight"),
        pytest.param("suppress_lock", "yes", "true or false", id="suppress_lock"),
        pytest.param("ready_on", "later", "listen or startup", id="ready_on"),
        pytest.param("threads", "0", "a whole number above 0", id="threads"),
        pytest.param("max_body", "0", "a size above 0, such as 4096, 256KB or 100MB", id="max_body"),
        pytest.param("max_head", "1e9", "a size such as 4096, 256KB or 100MB", id="max_head"),
        pytest.param(
            "keep_alive",
            "10s",
            "a duration of at least 90s, for which of-watchdog may reuse an idle connection",
            id="keep_alive",
        ),
        pytest.param("debug", "on", "true or false", id="debug"),
        pytest.param("log_level", "verbose", "debug, info, warning or error", id="log_level"),
        pytest.param("log_format", "xml", "text or json", id="log_format"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_setting_value_and_what_it_takes(name, text, takes):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: text})
    assert str(caught.value) == f"{name}={text!r} is not valid: it takes {takes}"


def test_every_setting_but_a_path_refuses_hostile_text():
    for name in SETTINGS.keys() - {"secret_dir"}:
        for parameter in HOSTILE:
            if parameter.values[0] != "true":
                with pytest.raises(SettingsError, match=f"^{name}="):
                    Settings.from_env({name: parameter.values[0]})


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31m", "x" * 100000, "é\udc80\0"], ids=["line end", "escape", "overlong", "not ascii"]
)
def test_the_message_is_one_short_printable_line(text):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"max_body": text})
    message = str(caught.value)
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 250


@pytest.mark.parametrize("name", ["read_timeout", "write_timeout", "keep_alive", "exec_timeout"])
def test_a_server_lives_with_a_duration_of_weeks(name):
    with serving(lambda event, context: "fine", **{name: "1000h"}) as server:
        assert [server.get("/").body for _ in range(3)] == [b"fine"] * 3
