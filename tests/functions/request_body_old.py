def handle(event, context):
    return {
        "status_code": 200,
        "response": "You said: " + str(event.body)
    }
