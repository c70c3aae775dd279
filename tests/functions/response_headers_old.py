def handle(event, context):
    return {
        "status_code": 200,
        "response": {
            "key": "value"
        },
        "headers": [
            ("Location", "https://www.example.com/"),
            ("Content-Type", "application/vnd.example+json")
        ]
    }
