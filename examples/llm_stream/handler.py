"""Tokens of a language model as they come: one JSON object a line (NDJSON)."""

import asyncio

from watchdog_app import HTTPError


async def handle(event, context):
    request = event.json()
    prompt = request.get("prompt") if isinstance(request, dict) else None
    if not isinstance(prompt, str) or not prompt:
        raise HTTPError(
            400, {"error": "prompt: what to answer"}
        )  # until the first item, the status can still be chosen
    count = 0
    async for token in tokens(prompt):
        count += 1
        yield {"token": token}
    yield {"done": True, "tokens": count}


async def tokens(prompt):
    """Stand in for a model: put your client's stream here, such as `async for chunk in client.stream(prompt)`."""
    for word in f"You asked: {prompt}".split(" "):
        await asyncio.sleep(0.05)  # other calls go on meanwhile
        yield word + " "
