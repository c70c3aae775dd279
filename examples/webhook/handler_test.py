import hashlib
import hmac

import pytest

from handler import handle
from watchdog_app import invoke

SECRET = "It's a Secret to Everybody"
BODY = b'{ "action": "opened" }'


@pytest.fixture(autouse=True)
def secret(tmp_path, monkeypatch):
    (tmp_path / "webhook-secret").write_text(SECRET + "\n")
    monkeypatch.setenv("secret_dir", str(tmp_path))


def sign(body, secret=SECRET):
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_signature_is_that_of_githubs_documentation():
    assert sign(b"Hello, World!") == "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_signed_call_is_taken():
    answer = invoke(handle, "POST", body=BODY, headers={"X-Hub-Signature-256": sign(BODY), "X-GitHub-Event": "issues"})
    assert (answer.status, answer.json()) == (202, {"event": "issues", "action": "opened"})


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no signature"),
        pytest.param({"X-Hub-Signature-256": sign(BODY, "guess")}, id="another secret"),
        pytest.param({"X-Hub-Signature-256": sign(b'{"action":"opened"}')}, id="the same JSON in other bytes"),
        pytest.param({"X-Hub-Signature-256": "sha256=\xe9"}, id="not ASCII"),
    ],
)
def test_other_call_is_refused(headers):
    assert invoke(handle, "POST", body=BODY, headers=headers).status == 403
