"""A function that sends back what it gets, piece by piece as it comes."""

from payload import PIECE

stream_request = True


def handle(event, context):
    while piece := event.stream.read(PIECE):
        yield piece
