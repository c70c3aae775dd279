"""What the applications answer with, the same for all."""

from __future__ import annotations

import json
import time

HELLO = {"message": "Hello from OpenFaaS!"}
ORDERS = [
    {
        "id": number,
        "customer": f"customer {number}",
        "total": number * 1.25,
        "paid": number % 2 == 0,
        "tags": ["new", "net"],
    }
    for number in range(125)  # 10 KiB
]
SLEEP, LONG, BURN = 0.05, 1.0, 0.5  # seconds
PIECE = 65536


def to_json(value: object) -> bytes:
    """Encode as the product and Flask do: compact."""
    return json.dumps(value, separators=(",", ":")).encode()


def burn() -> None:
    """Keep the interpreter busy for BURN seconds."""
    end = time.monotonic() + BURN
    while time.monotonic() < end:
        sum(range(100))
