"""An HTML form and its answer: whatever a visitor types is escaped before it is HTML."""

from html import escape

from watchdog_app import HTTPError

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Guest book</title>
<p>{message}</p>
<form method="post">
  <label>Name <input name="name" value="{name}" required></label>
  <button>Sign</button>
</form>
"""


def handle(event, context):
    if event.method in ("GET", "HEAD"):
        return page("Who are you?")
    if event.method != "POST":
        raise HTTPError(405, headers={"Allow": "GET, HEAD, POST"})
    name = event.form()["name"].strip()  # a missing field is a 400 that names it
    if not name:
        return page("Please type a name."), 400
    return page(f"Hello, {name}!", name)


def page(message, name=""):
    return PAGE.format(message=escape(message), name=escape(name))
