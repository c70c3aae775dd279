def handle(event, context):
    return {
        "status_code": 200,
        "response": {
            "content-type-received": event.headers['Content-Type']
        }
    }
