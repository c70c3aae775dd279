from conftest import call, serving


def test_a_function_is_called_through_the_application_half():
    assert call(lambda event, context: {"statusCode": 200, "body": "x"}).body == b"x"


def test_a_function_is_called_through_the_server():
    with serving(lambda event, context: "hi") as server:
        answer = server.get("/")
        assert (answer.status, answer.body) == (200, b"hi")
