import pytest

import watchdog_app
from handler import handle, wrap
from watchdog_app import invoke

FUNCTION = watchdog_app.Function(handle, wrap=wrap)
SHOP = {"Origin": "https://shop.example"}


@pytest.mark.parametrize(("target", "status"), [("/?name=Ann", 200), ("/", 400)])
def test_page_may_read_the_response_and_the_error(target, status):
    answer = invoke(FUNCTION, "GET", target, headers=SHOP)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, "https://shop.example")
    assert answer.headers["Vary"] == "Origin"


def test_browser_asks_before_the_call():
    headers = {**SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = invoke(FUNCTION, "OPTIONS", headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", "https://shop.example.evil.example", "null", ""])
def test_other_page_may_not_read_it(origin):
    answer = invoke(FUNCTION, "GET", "/?name=Ann", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


def test_caller_that_is_no_browser_is_answered():
    assert invoke(FUNCTION, "GET", "/?name=Ann").json() == {"hello": "Ann"}
