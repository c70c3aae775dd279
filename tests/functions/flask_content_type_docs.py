def handle(req):
    return "request accepted", 201, {"Content-Type":"binary/octet-stream"}
