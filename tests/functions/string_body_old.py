def handle(event, context):
    return {
        "status_code": 201,
        "response": "Object successfully created"
    }
