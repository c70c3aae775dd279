import json
from base64 import urlsafe_b64encode

import pytest

import handler
from handler import handle
from watchdog_app import invoke

KEY = "a key of at least 32 random bytes"
LATER = 4102444800  # in the year 2100


@pytest.fixture(autouse=True)
def secret(tmp_path, monkeypatch):
    (tmp_path / "jwt-key").write_text(KEY + "\n")
    monkeypatch.setenv("secret_dir", str(tmp_path))


def encoded(value):
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def token(claims, head=None, key=KEY):
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', **(head or {})})}.{encoded(claims)}"
    return f"{signed}.{handler.sign(signed, key)}"


def ask(token, scheme="Bearer"):
    return invoke(handle, headers={"Authorization": f"{scheme} {token}"})


def test_signature_is_that_of_the_rfc():
    """RFC 7515, appendix A.1, whose key is given in base64."""
    signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"

    class Key(str):
        def encode(self):
            return handler.urlsafe_b64decode(self + "==")

    assert handler.sign(signed, Key(key)) == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


def test_holder_of_a_token_is_greeted():
    answer = ask(token({"sub": "ann", "exp": LATER}))
    assert (answer.status, answer.json()) == (200, {"hello": "ann"})


GOOD = {"sub": "ann", "exp": LATER}
REFUSED = [
    pytest.param(token(GOOD, key="guess"), id="another key"),
    pytest.param(token({"sub": "ann", "exp": 1}), id="expired"),
    pytest.param(token({"sub": "ann"}), id="never expires"),
    pytest.param(token({"sub": "ann", "exp": "later"}), id="expires in words"),
    pytest.param(token(GOOD, {"alg": "none"}), id="algorithm none"),
    pytest.param(token(GOOD, {"alg": "RS256"}), id="another algorithm"),
    pytest.param(token(GOOD, {"crit": ["b64"]}), id="extension that must be understood"),
    pytest.param(token([]), id="no claims"),
    pytest.param(token(GOOD).rpartition(".")[0] + ".", id="no signature"),
    pytest.param(token(GOOD).replace(".", "..", 1), id="four parts"),
    pytest.param(token(GOOD) + "=", id="padding"),
    pytest.param("\xe9.\xe9.\xe9", id="not ASCII"),
    pytest.param("", id="empty"),
]


@pytest.mark.parametrize("wrong", REFUSED)
def test_other_token_is_refused(wrong):
    answer = ask(wrong)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_other_scheme_or_none_is_refused():
    assert ask(token(GOOD), "Basic").status == 401
    assert invoke(handle).status == 401
