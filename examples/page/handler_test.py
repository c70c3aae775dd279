from handler import handle, render
from watchdog_app import invoke


def test_page_lists_what_was_asked_for():
    answer = invoke(handle, target="/?q=mer")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>Planets with mer</h1>" in answer.text
    assert "<li>Mercury</li>\n</ul>" in answer.text


def test_what_a_visitor_sends_is_escaped():
    answer = invoke(handle, target="/?q=%3Cscript%3E%24title")
    assert "<script>" not in answer.text
    assert "<title>Planets with &lt;script&gt;$title</title>" in answer.text


def test_names_are_escaped():
    assert "<li>&lt;b&gt; &amp; Co</li>" in render("", ["<b> & Co"])


def test_page_that_the_caller_has_is_not_sent_again():
    tag = invoke(handle).headers["ETag"]
    again = invoke(handle, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    assert invoke(handle, target="/?q=a", headers={"If-None-Match": tag}).status == 200
