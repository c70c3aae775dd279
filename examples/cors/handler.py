"""CORS: scripts of the pages in ORIGINS may call this function from a browser, and read its errors too."""

import os

ORIGINS = os.environ.get("origins", "https://shop.example").split()
PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", "Content-Type, Authorization"),
    ("Access-Control-Max-Age", "600"),
]


def handle(event, context):
    return {"hello": event.query["name"]}


def wrap(application):
    """Answer the browser's question before a call, and add to each response who may read it."""

    def with_cors(environ, start_response):
        allowed = [("Vary", "Origin")]  # a cache keeps one response for each origin
        if environ.get("HTTP_ORIGIN") in ORIGINS:
            allowed.append(("Access-Control-Allow-Origin", environ["HTTP_ORIGIN"]))
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            start_response("204 No Content", allowed + PREFLIGHT)
            return []

        def start(status, headers, exc_info=None):
            return start_response(status, headers + allowed, exc_info)

        return application(environ, start)

    return with_cors
