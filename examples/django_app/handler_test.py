import re

import pytest

pytest.importorskip("django")

from handler import handle
from watchdog_app import invoke


def post(name, token=None):
    """Fill in the form as a browser does, with the cookie and the hidden field that came with it."""
    page = invoke(handle)
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    token = re.search('name="csrfmiddlewaretoken" value="(.+?)"', page.text)[1] if token is None else token
    return invoke(handle, "POST", form={"name": name, "csrfmiddlewaretoken": token}, headers={"Cookie": cookie})


def test_form_is_shown():
    answer = invoke(handle)
    assert (answer.status, answer.headers["X-Frame-Options"]) == (200, "DENY")
    assert '<input type="text" name="name"' in answer.text


def test_name_is_greeted_and_escaped():
    answer = post("<Zoë>")
    assert answer.status == 200
    assert "<p>Hello, &lt;Zoë&gt;!</p>" in answer.text


def test_name_that_is_too_long_is_shown_again():
    answer = post("x" * 21)
    assert "at most 20 characters" in answer.text
    assert "Hello" not in answer.text


def test_form_of_another_page_is_refused():
    assert post("Ann", "x" * 64).status == 403
    assert invoke(handle, "POST", form={"name": "Ann"}).status == 403


def test_other_path_is_a_404():
    assert invoke(handle, "GET", "/other").status == 404
