"""Ask several services at once, and answer with what they said: the slowest one sets the time, not the sum."""

import asyncio
import json
import os
import urllib.error
import urllib.request
from http.client import HTTPException

SERVICES = os.environ.get("services", "").split()  # URLs that answer with JSON
PATIENCE = 5.0  # seconds for one service


async def handle(event, context):
    if not SERVICES:
        return {"error": "set services to the URLs to ask"}, 500
    answers = await asyncio.gather(*(ask(url) for url in SERVICES))
    return {"answers": dict(zip(SERVICES, answers, strict=True))}


async def ask(url):
    """Return what a service says; one that fails does not spoil the answers of the others."""
    try:
        return await asyncio.to_thread(fetch, url)
    except urllib.error.HTTPError as error:
        with error:  # it is a response too, and holds a connection
            return {"error": str(error)}
    except (OSError, HTTPException, ValueError) as error:  # no answer, half of one, or no JSON
        return {"error": f"{type(error).__name__}: {error}"}


def fetch(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)
