def handle(event, context):
    return {
        "status_code": 200,
        "response": {
            "key": "value"
        }
    }
