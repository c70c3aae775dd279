def handle(event, context):
    if event.path == '/hello':
        return {
            "statusCode": 200,
            "body": "Hello, World!"
        }

    return {
        "statusCode": 404,
        "body": "Not Found"
    }
