"""A first test of the function: call it as the server does."""

from handler import handle
from watchdog_app import invoke


def test_body_is_greeted():
    answer = invoke(handle, "POST", "/", body="Ada")
    assert answer.status == 200
    assert answer.json() == {"message": "Hello, Ada!"}


def test_world_is_greeted_without_a_name():
    assert invoke(handle).json() == {"message": "Hello, World!"}
