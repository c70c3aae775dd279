"""The example function: greet whom the body names."""


def handle(event, context):
    name = event.text[:100].strip() or event.query.get("name", "World")
    return {"statusCode": 200, "body": {"message": f"Hello, {name}!"}}
