"""A bearer token (JWT, RFC 7519) signed with HS256: nothing counts before its signature is right."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

from watchdog_app import HTTPError


def handle(event, context):
    claims = verified(event.headers.get("Authorization", ""), context.secret("jwt-key"))
    return {"hello": claims.get("sub")}


def verified(authorization, key):
    """Return the claims of a token that is signed with `key` and has not expired; answer 401 to any other.

    Where several services share a key, check the claims `iss` and `aud` too. For RS256 or keys that change, take PyJWT.
    """
    try:
        scheme, token = authorization.split(" ")
        signed, signature = token.rsplit(".", 1)
        if scheme.lower() == "bearer" and hmac.compare_digest(signature, sign(signed, key)):  # in constant time
            head, claims = (json.loads(urlsafe_b64decode(part + "==")) for part in signed.split("."))
            # The algorithm is ours to choose; `crit` names what a reader must understand
            if head["alg"] == "HS256" and "crit" not in head and claims["exp"] > time.time():
                return claims
    except (ValueError, KeyError, TypeError):  # no token
        pass
    raise HTTPError(401, {"error": "a valid token is needed"}, {"WWW-Authenticate": 'Bearer error="invalid_token"'})


def sign(text, key):
    """Return the signature of text as base64 without padding."""
    digest = hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
