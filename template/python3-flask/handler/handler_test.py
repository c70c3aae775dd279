"""A first test of the function."""

from handler import handle


def test_body_is_greeted():
    assert handle("Ada") == {"message": "Hello, Ada!"}


def test_world_is_greeted_without_a_name():
    assert handle("") == {"message": "Hello, World!"}
