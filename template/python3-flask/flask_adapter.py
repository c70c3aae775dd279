"""The Flask application of the template python3-flask, around a `handle(req)` that receives only the body.

It stands beside the function's handler.py, and is loaded in its place.
"""

import os

from flask import Flask, request
from flask.logging import default_handler

from . import handler

app = Flask(__name__, root_path=os.getcwd())  # as there, where a folder `static` of the function is not served
app.logger.removeHandler(default_handler)  # an exception becomes one record of the runtime's log, with the call id


@app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
@app.route("/<path:path>", methods=["GET", "POST"])
def main_route(path):
    """Call the function with the body as text, or as bytes with RAW_BODY; every path leads here."""
    is_raw = os.environ.get("RAW_BODY", "").lower() in ("true", "1")
    return handler.handle(request.get_data(as_text=not is_raw))


def handle(event, context):
    """Let the Flask application respond."""
    return app
