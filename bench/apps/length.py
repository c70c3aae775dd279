"""A function that reads its body."""


def handle(event, context):
    return {"statusCode": 200, "body": {"bytes": len(event.body)}}
