"""Server-sent events: how far a long job is, as a browser's EventSource reads it."""

import asyncio
import json

STEP = 0.2  # seconds of work between two events


def handle(event, context):
    steps = min(event.query.get("steps", 5, type=int), 100)
    return progress(steps, context), {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


async def progress(steps, context):
    """Yield an event a step, and stop working once nobody listens any more."""
    for step in range(1, steps + 1):
        await asyncio.sleep(STEP)  # put a step of your work here
        if context.cancelled:
            return
        yield message("progress", {"step": step, "of": steps})
    yield message("done", {"steps": steps})


def message(name, data):
    """Return one event; JSON has no line break, which would end its `data` line."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
