import pytest

import handler
from handler import handle
from watchdog_app import invoke

# As the queue-worker sends it: the function's own headers, and these
HEADERS = {"X-Call-Id": "7", "X-Function-Name": "slow", "X-Function-Status": "200", "X-Duration-Seconds": "1.500000"}
RESULT = {"status": 200, "seconds": 1.5, "body": "done"}


@pytest.fixture(autouse=True)
def results(monkeypatch):
    monkeypatch.setattr(handler, "RESULTS", {})


def test_result_is_there_once_its_callback_has_come():
    assert invoke(handle, "GET", "/7").status == 404
    assert invoke(handle, "POST", body="done", headers=HEADERS).status == 202
    answer = invoke(handle, "GET", "/7")
    assert (answer.status, answer.json()) == (200, RESULT)


def test_failure_of_the_function_is_a_result_too():
    failed = {**HEADERS, "X-Function-Status": "500"}
    assert invoke(handle, "POST", body="no luck", headers=failed).status == 202
    assert invoke(handle, "GET", "/7").json() == {**RESULT, "status": 500, "body": "no luck"}


def test_call_that_took_too_long_has_no_body_and_no_duration():
    headers = {"X-Call-Id": "7", "X-Function-Status": "504"}
    invoke(handle, "POST", headers=headers)
    assert invoke(handle, "GET", "/7").json() == {"status": 504, "seconds": None, "body": ""}


def test_callback_that_comes_twice_is_one_result():
    for _ in range(2):
        invoke(handle, "POST", body="done", headers=HEADERS)
    assert {"7": RESULT} == handler.RESULTS


@pytest.mark.parametrize("header", [{}, {"X-Call-Id": "7"}, {"X-Call-Id": "7", "X-Function-Status": "fine"}])
def test_other_call_is_refused(header):
    assert invoke(handle, "POST", body="done", headers=header).status == 400
    assert handler.RESULTS == {}


def test_oldest_result_goes_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(handler, "MOST", 2)
    for number in "123":
        invoke(handle, "POST", body=number, headers={**HEADERS, "X-Call-Id": number})
    assert list(handler.RESULTS) == ["2", "3"]
