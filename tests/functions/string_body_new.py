def handle(event, context):
    return {
        "statusCode": 201,
        "body": "Object successfully created"
    }
