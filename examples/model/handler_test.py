import pytest

import handler
from handler import handle
from watchdog_app import invoke


@pytest.fixture(autouse=True)
def model():
    handler.startup(None)


@pytest.mark.parametrize(
    ("text", "is_spam"),
    [
        pytest.param("See you tomorrow at noon.", False, id="plain"),
        pytest.param("BUY NOW!!! http://a.example http://b.example", True, id="loud, with links"),
        pytest.param("", False, id="empty"),
        pytest.param("!" * 10_000, True, id="very loud"),
    ],
)
def test_text_is_judged(text, is_spam):
    answer = invoke(handle, "POST", body=text)
    assert answer.status == 200
    assert (answer.json()["spam"] > 0.5) is is_spam


def test_probability_is_between_0_and_1_for_any_value():
    for count in (-10_000, 0, 10_000):
        assert 0 <= handler.probability({"links": count}) <= 1
