import pytest

from handler import handle
from watchdog_app import invoke


@pytest.mark.parametrize(
    ("target", "result"),
    [
        pytest.param("/orders", {"1": {"item": "tea"}}, id="a path"),
        pytest.param("/orders?page=2", {"1": {"item": "tea"}}, id="with a query"),
        pytest.param("/orders/1", {"item": "tea"}, id="with a number"),
    ],
)
def test_path_leads_to_its_function(target, result):
    answer = invoke(handle, "GET", target)
    assert (answer.status, answer.json()) == (200, result)


@pytest.mark.parametrize("target", ["/", "/orders/", "/orders/1/", "/orders/1/2", "/orders/2", "/xorders"])
def test_other_path_is_a_404(target):
    assert invoke(handle, "GET", target).status == 404


def test_other_method_is_a_405_that_names_the_right_ones():
    answer = invoke(handle, "DELETE", "/orders/1")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
