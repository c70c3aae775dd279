"""The fuzzers, as far as the gate can wait for them; `make fuzz` runs them without an end."""

from __future__ import annotations

import pytest
from fuzz_multipart import MultipartFuzzer
from fuzz_requests import BAD, CUT, GOOD, ReaderFuzzer, difference, socket_fuzzer
from fuzz_results import result_fuzzer
from strict_reading import Limits, read_requests

SEED = 1
INPUTS, BATCHES, RESULTS = 15_000, 600, 2_500  # about 5 seconds each


def name(raw):
    return ascii(raw)[1:60]


@pytest.mark.parametrize("raw", GOOD, ids=name)
def test_a_good_seed_is_accepted_by_both(raw):
    data = raw.encode("latin-1")
    reading = read_requests(data, Limits())
    assert (reading.end in ("between", "closed"), len(reading.messages) > 0) == (True, True)
    assert difference(data, (1,), Limits()) == ""


@pytest.mark.parametrize("raw", BAD, ids=name)
def test_a_bad_seed_is_refused_by_both(raw):
    data = raw.encode("latin-1")
    reading = read_requests(data, Limits(head=2000))
    assert (reading.end, reading.messages) == ("refused", [])
    assert difference(data, (1,), Limits(head=2000)) == ""


@pytest.mark.parametrize("raw", CUT, ids=name)
def test_a_cut_seed_is_waited_for_by_both(raw):
    data = raw.encode("latin-1")
    assert read_requests(data, Limits()).end in ("incomplete", "between")
    assert difference(data, (1,), Limits()) == ""


@pytest.mark.slow
def test_the_reader_agrees_with_a_strict_reading_of_the_same_bytes():
    fuzzer = ReaderFuzzer(SEED)
    for _ in range(INPUTS):
        assert (finding := fuzzer.step()) is None, str(finding)
    reached = {kind for kind, number in fuzzer.ends.items() if number > INPUTS / 2000}
    assert reached >= {"between", "closed", "incomplete", "refused", "400", "413", "431", "501", "505"}
    assert fuzzer.ends["accepted"] > INPUTS / 2


@pytest.mark.slow
def test_the_parser_of_forms_agrees_with_a_strict_reading_of_the_same_bytes():
    fuzzer = MultipartFuzzer(SEED + 1)
    for _ in range(INPUTS):
        assert (finding := fuzzer.step()) is None, str(finding)
    assert all(fuzzer.ends[kind] > INPUTS / 30 for kind in ("accepted", "refused", "file"))


@pytest.mark.slow
def test_the_server_gives_each_request_its_answer_whatever_others_send():
    with socket_fuzzer(SEED) as fuzzer:
        for _ in range(BATCHES):
            assert (finding := fuzzer.step()) is None, str(finding)


@pytest.mark.slow
def test_whatever_handle_returns_is_one_response_or_a_visibly_cut_one():
    with result_fuzzer(SEED) as (fuzzer, step):
        for _ in range(RESULTS):
            assert (finding := step()) is None, str(finding)
    assert fuzzer.seen.keys() >= {"200", "204", "304", "404", "500", "599", "cut"}
