def handle(event, context):
    if event.method == 'GET':
        return {
            "status_code": 200,
            "response": "GET request"
        }
    else:
        return {
            "status_code": 405,
            "response": "Method not allowed"
        }
