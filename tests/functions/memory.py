"""Answers whose memory is measured."""

LARGE = b"x" * (20 << 20)


def handle(event, context):
    return LARGE if event.path == "/large" else "unread"
