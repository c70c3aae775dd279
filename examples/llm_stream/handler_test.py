import json

import pytest

from handler import handle
from watchdog_app import invoke


def test_tokens_come_as_lines():
    answer = invoke(handle, "POST", json={"prompt": "why so blue?"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    *tokens, last = [json.loads(line) for line in answer]
    assert "".join(item["token"] for item in tokens) == "You asked: why so blue? "
    assert last == {"done": True, "tokens": 5}


@pytest.mark.parametrize(
    "body", [[], {}, {"prompt": ""}, {"prompt": 5}], ids=["no object", "no prompt", "empty prompt", "number"]
)
def test_missing_prompt_is_refused(body):
    answer = invoke(handle, "POST", json=body)
    assert (answer.status, answer.json()) == (400, {"error": "prompt: what to answer"})
