"""A webhook as GitHub sends it: nothing counts before the signature of the raw body is right."""

import hashlib
import hmac

from watchdog_app import HTTPError


def handle(event, context):
    if not is_signed(event, context.secret("webhook-secret")):
        raise HTTPError(403, {"error": "the signature is wrong or missing"})
    kind = event.headers.get("X-GitHub-Event", "unknown")
    payload = event.json()
    return {"event": kind, "action": payload.get("action")}, 202


def is_signed(event, secret):
    """Tell whether X-Hub-Signature-256 is that of the body as it came, in a time that does not say how much of it is right."""
    expected = "sha256=" + hmac.new(secret.encode(), event.body, hashlib.sha256).hexdigest()
    signature = event.headers.get("X-Hub-Signature-256", "")
    return hmac.compare_digest(signature.encode("latin-1"), expected.encode())
