"""The smallest function that answers JSON."""


def handle(event, context):
    return {"statusCode": 200, "body": {"message": "Hello from OpenFaaS!"}}
