"""The receiver of OpenFaaS callbacks: what an asynchronous call has answered, by its call id.

    curl -d 'work' -H 'X-Callback-Url: http://gateway.openfaas:8080/function/callback' \
        http://127.0.0.1:8080/async-function/slow

is answered at once with 202 and an X-Call-Id. When the function `slow` has finished, the queue-worker posts its response
to X-Callback-Url, with X-Call-Id, X-Function-Name, X-Function-Status and X-Duration-Seconds.
"""

from watchdog_app import HTTPError

MOST = 1000
RESULTS = {}  # by call id, in this replica's memory: with several replicas, keep them in a database


def handle(event, context):
    if event.method == "POST":
        return receive(event, event.headers["X-Call-Id"])  # a missing header is a 400 that names it
    call_id = event.path.removeprefix("/")
    if call_id not in RESULTS:
        raise HTTPError(404, {"error": "no such call, or not finished"})
    return RESULTS[call_id]


def receive(event, call_id):
    """Keep a result. A callback may come twice: the second one changes nothing."""
    status = event.headers.get("X-Function-Status", type=int)
    if status is None:
        raise HTTPError(400, {"error": "X-Function-Status is a number"})
    seconds = event.headers.get("X-Duration-Seconds", type=float)
    RESULTS[call_id] = {"status": status, "seconds": seconds, "body": event.text}
    while len(RESULTS) > MOST:
        RESULTS.pop(next(iter(RESULTS)), None)  # the oldest one
    return "", 202
