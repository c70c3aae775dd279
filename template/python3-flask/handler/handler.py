"""The example function: greet whom the body names."""


def handle(req):
    name = req[:100].strip() or "World"
    return {"message": f"Hello, {name}!"}
