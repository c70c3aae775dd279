def handle(event, context):
    if event.path=="/static":
        # Get the directory where this handler.py file is located
        current_dir = os.path.dirname(os.path.abspath(__file__))
        data_file_path = os.path.join(current_dir, 'data.json')

        # Read the data.json file
        with open(data_file_path, 'r') as file:
            data = json.load(file)

        return {
            "statusCode": 200,
            "body": json.dumps(data),
            "headers": {
                "Content-Type": "application/json"
            }
        }
    else:
        return {
            "statusCode": 200,
            "body": "Hello from OpenFaaS!"
        }
