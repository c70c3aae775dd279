import time
from flask import Response

def handle(req):
    def generate():
        for i in range(1, 6):
            time.sleep(1)
            yield f"data: Message {i} of 5\n\n"
        yield "data: [DONE]\n\n"

    return Response(generate(), mimetype='text/event-stream')
