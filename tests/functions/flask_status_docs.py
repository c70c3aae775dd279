def handle(req):
    return "request accepted", 201
