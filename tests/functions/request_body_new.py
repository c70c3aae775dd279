def handle(event, context):
    return {
        "statusCode": 200,
        "body": "You said: " + str(event.body)
    }
