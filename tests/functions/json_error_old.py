def handle(event, context):
    return {
        "status_code": 400,
        "response": {
            "error": "Bad request"
        }
    }
