from handler import handle
from watchdog_app import invoke


def test_form_is_shown():
    answer = invoke(handle)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<form method="post">' in answer.text


def test_form_is_answered():
    answer = invoke(handle, "POST", form={"name": "Zoë"})
    assert answer.status == 200
    assert "<p>Hello, Zoë!</p>" in answer.text


def test_what_is_typed_is_escaped():
    answer = invoke(handle, "POST", form={"name": '"><script>alert(1)</script>'})
    assert "<script>" not in answer.text
    assert 'value="&quot;&gt;&lt;script&gt;' in answer.text


def test_blank_name_is_asked_for_again():
    answer = invoke(handle, "POST", form={"name": " "})
    assert answer.status == 400
    assert "Please type a name." in answer.text


def test_missing_field_is_named():
    answer = invoke(handle, "POST", form={"nickname": "Zoë"})
    assert answer.status == 400
    assert "name" in answer.text


def test_body_that_is_no_form_is_refused():
    assert invoke(handle, "POST", json={"name": "Zoë"}).status == 415


def test_other_method_is_refused():
    assert invoke(handle, "DELETE").status == 405
