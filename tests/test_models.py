"""Models of pydantic, attrs and msgspec, dataclasses, numpy's values: as results, anywhere in one, and as what a body is to fit.

`make examples-test` installs the packages. Without them, stand-ins that have the same methods are tested alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import subprocess
import sys
import types
from typing import Any

import pytest
from conftest import DEADLINE, ROOT, call

from watchdog_app import invoke

DAY = datetime.date(2026, 2, 28)
JSON = "application/json"


def of_pydantic() -> Any:
    pydantic = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):
        at: datetime.date

    class Order(pydantic.BaseModel):
        item: str
        price: float
        parts: list[Inner]
        secret: str = pydantic.Field("", exclude=True)

    return Order(item="tea", price=2.5, parts=[Inner(at=DAY)], secret="x")


def of_attrs() -> Any:
    attrs = pytest.importorskip("attrs")
    inner = attrs.make_class("Inner", ["at"], slots=True)
    return attrs.make_class("Order", ["item", "price", "parts"])("tea", 2.5, [inner(DAY)])


def of_msgspec() -> Any:
    msgspec = pytest.importorskip("msgspec")
    inner = msgspec.defstruct("Inner", [("at", datetime.date)])
    unset = msgspec.UNSET
    fields = ["item", "thePrice", "parts", ("gone", Any, unset)]
    order = msgspec.defstruct("Order", fields, rename={"thePrice": "price"})
    return order("tea", 2.5, [inner(DAY)])


def of_dataclasses() -> Any:
    inner = dataclasses.make_dataclass("Inner", ["at"])
    return dataclasses.make_dataclass("Order", ["item", "price", "parts"])("tea", 2.5, [inner(DAY)])


def of_numpy() -> Any:
    numpy = pytest.importorskip("numpy")
    return {"item": numpy.str_("tea"), "price": numpy.float32(2.5), "parts": numpy.array([{"at": DAY}])}


MODELS = [of_pydantic, of_attrs, of_msgspec, of_dataclasses, of_numpy]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_json_as_a_result_and_in_one(model):
    order, text = model(), '{"item":"tea","price":2.5,"parts":[{"at":"2026-02-28"}]}'
    results = {
        text: order,
        f'{{"orders":[{text}]}}': {"orders": (order,)},
        f"[[{text}]]": dataclasses.make_dataclass("Holder", ["all"])([order]).__dict__.values(),
    }
    for expected, result in results.items():
        for spelled in (result, {"statusCode": 200, "body": result}, (result, 200)):
            answer = call(lambda event, context, spelled=spelled: spelled)
            assert (answer.status, answer.header("Content-Type"), answer.text) == (200, JSON, expected)


NUMBERS = [
    pytest.param("int64(-3)", "-3", id="int"),
    pytest.param("uint8(255)", "255", id="small int"),
    pytest.param("float16(0.5)", "0.5", id="float of 16 bits"),
    pytest.param("float64(0.1)", "0.1", id="float, which is one of Python's"),
    pytest.param("longdouble(1.5)", "1.5", id="float whose item() is itself"),
    pytest.param("bool_(True)", "true", id="truth"),
    pytest.param("datetime64('2026-02-28T12:00')", '"2026-02-28T12:00:00"', id="time"),
    pytest.param("array(7)", "7", id="array of no dimension"),
    pytest.param("array([])", "[]", id="empty array"),
    pytest.param("arange(6).reshape(2, 3)", "[[0,1,2],[3,4,5]]", id="two dimensions"),
    pytest.param("ma.masked_array([1, 2], [0, 1])", "[1,null]", id="masked"),
]


@pytest.mark.parametrize(("code", "text"), NUMBERS)
def test_a_value_of_numpy_is_json(code, text):
    value = eval(f"numpy.{code}", {"numpy": pytest.importorskip("numpy")})
    assert call(lambda event, context: value).text == text
    assert call(lambda event, context: {"a": [value]}).text == f'{{"a":[{text}]}}'


def with_odd_part(library: str) -> Any:
    package = pytest.importorskip(library)
    if library == "msgspec":
        return package.defstruct("Order", ["item", ("part", Any)], tag=True)("tea", 1j)
    if library == "attrs":
        return package.make_class("Order", ["item", "part"])("tea", 1j)
    return {"item": "tea", "part": package.array([1, package.clongdouble(1)])}


FAULTS = [
    pytest.param("msgspec", "[0].part = 1j of type complex", id="msgspec"),
    pytest.param("attrs", "[0].part = 1j of type complex", id="attrs"),
    pytest.param("numpy", "[0].part[0] = (1+0j) of type complex", id="numpy"),
]


@pytest.mark.parametrize(("library", "place"), FAULTS)
def test_a_part_of_a_model_that_is_no_json_is_named(library, place, log):
    value = with_odd_part(library)
    assert call(lambda event, context: [value]).status == 500
    assert f"{place} cannot be sent as JSON: str(...) would help" in log.getvalue()


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_a_number_of_numpy_that_is_not_in_json_is_named(number, log):
    numpy = pytest.importorskip("numpy")
    results = [numpy.float32(number), numpy.float64(number), numpy.array([number], float)]
    for result in results:
        assert call(lambda event, context, result=result: {"a": result}).status == 500
    assert log.getvalue().count("None would help") == len(results)


def test_a_part_that_pydantic_cannot_serialize_is_a_fault_in_pydantics_words(log):
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Order", part=(Any, ...))(part=object())
    assert call(lambda event, context: {"order": model}).status == 500
    assert "order = Order(part=<object object at" in log.getvalue()
    assert "of type Order cannot be sent as JSON: Unable to serialize unknown type" in log.getvalue()


# -- event.json(Model) --


def pydantic_order() -> Any:
    pydantic = pytest.importorskip("pydantic")
    field = pydantic.Field(gt=0)
    config = pydantic.ConfigDict(strict=True)
    return pydantic.create_model(
        "Order", __config__=config, item=(str, ...), count=(int, field), day=(datetime.date, DAY)
    )


def msgspec_order() -> Any:
    msgspec = pytest.importorskip("msgspec")
    fields = [("item", str), ("count", int), ("day", datetime.date, DAY)]
    return msgspec.defstruct("Order", fields, forbid_unknown_fields=True)


def attrs_order() -> Any:
    attrs = pytest.importorskip("attrs")
    kinds = {"item": str, "count": int}
    fields = {name: attrs.field(validator=attrs.validators.instance_of(kind)) for name, kind in kinds.items()}
    return attrs.make_class("Order", {**fields, "day": attrs.field(default=DAY)})


@dataclasses.dataclass
class PlainOrder:
    item: str
    count: int
    day: Any = DAY

    def __post_init__(self) -> None:
        if not isinstance(self.count, int):
            raise ValueError(f"count takes an int, not {self.count!r}")


def by_hand(value: Any) -> PlainOrder:
    return PlainOrder(value["item"], int(value["count"]))


ORDERS = [
    pytest.param(pydantic_order, [{"type": "int_type", "loc": ["count"], "msg": "Input should be a valid integer"}], id="pydantic"),
    pytest.param(msgspec_order, "Expected `int`, got `str` - at `$.count`", id="msgspec"),
    pytest.param(attrs_order, "'count' must be <class 'int'> (got 'two' that is a <class 'str'>).", id="attrs"),
    pytest.param(lambda: PlainOrder, "count takes an int, not 'two'", id="dataclass"),
    pytest.param(lambda: by_hand, "invalid literal for int() with base 10: 'two'", id="function"),
]  # fmt: skip
BAD_BODIES = [
    pytest.param({"item": "tea"}, id="missing field"),
    pytest.param([{"item": "tea", "count": 2}], id="list"),
    pytest.param([1], id="list of one, which a field might take"),
    pytest.param(None, id="null"),
    pytest.param("text", id="text"),
]


@pytest.mark.parametrize(("order", "account"), ORDERS)
def test_a_body_that_fits_is_an_instance(order, account):
    model, seen = order(), []
    invoke(lambda event, context: seen.append(event.json(model)), "POST", json={"item": "tea", "count": 2})
    assert (seen[0].item, seen[0].count, seen[0].day) == ("tea", 2, DAY)


@pytest.mark.parametrize("order", [pydantic_order, msgspec_order])
def test_a_date_is_made_of_its_text(order):
    model, body = order(), {"item": "tea", "count": 2, "day": "2026-02-28"}
    assert invoke(lambda event, context: event.json(model), "POST", json=body).json()["day"] == "2026-02-28"


@pytest.mark.parametrize(("order", "account"), ORDERS)
def test_a_body_that_does_not_fit_is_a_422_with_the_models_own_account(order, account, log):
    model = order()
    answer = invoke(lambda event, context: event.json(model), "POST", json={"item": "tea", "count": "two"})
    assert (answer.status, answer.headers["Content-Type"], answer.json()) == (422, JSON, {"detail": account})
    assert log.getvalue() == ""


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize(("order", "account"), ORDERS)
def test_a_body_of_another_form_is_a_422(order, account, body):
    model = order()
    answer = invoke(lambda event, context: event.json(model), "POST", json=body)
    assert answer.status == 422
    assert answer.json()["detail"]


@pytest.mark.parametrize(("order", "account"), ORDERS)
def test_a_body_that_is_not_json_is_a_400_with_a_model_too(order, account):
    model = order()
    for body in (b"{", b"", b'{"item":"tea","count":NaN}', b"\xff"):
        assert invoke(lambda event, context: event.json(model), "POST", body=body).status == 400


def test_an_unknown_field_of_a_dataclass_is_a_422_that_names_it():
    body = {"item": "tea", "count": 1, "self": 1, "colour": "green"}
    answer = invoke(lambda event, context: event.json(PlainOrder), "POST", json=body)
    assert (answer.status, "self" in answer.text) == (422, True)
    del body["self"]
    answer = invoke(lambda event, context: event.json(PlainOrder), "POST", json=body)
    assert answer.json() == {"detail": "PlainOrder.__init__() got an unexpected keyword argument 'colour'"}


def test_a_missing_key_in_a_function_is_a_422_that_names_it():
    answer = invoke(lambda event, context: event.json(by_hand), "POST", json={"item": "tea"})
    assert (answer.status, answer.json()) == (422, {"detail": "missing 'count'"})


def refuse(*arguments: Any) -> Any:
    def model(value: Any) -> None:
        raise ValueError(*arguments)

    return model


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        pytest.param((), "", id="no text"),
        pytest.param(("x" * 5000,), "x" * 1000, id="long text"),
        pytest.param((7,), "7", id="a number"),
    ],
)
def test_an_account_is_text_of_some_length(arguments, detail):
    answer = invoke(lambda event, context: event.json(refuse(*arguments)), "POST", json={})
    assert (answer.status, answer.json()) == (422, {"detail": detail})


def test_a_function_may_catch_what_does_not_fit():
    def handle(event: Any, context: Any) -> Any:
        try:
            return event.json(by_hand)
        except Exception as error:
            return [error.status, type(error.__cause__).__name__]  # type: ignore[attr-defined]

    assert invoke(handle, "POST", json={}).json() == [422, "KeyError"]


def test_other_failures_of_a_model_are_faults_of_the_function(log):
    assert invoke(lambda event, context: event.json(lambda value: 1 / 0), "POST", json={}).status == 500
    assert "ZeroDivisionError" in log.getvalue()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("Order", id="text"),
        pytest.param(list[PlainOrder], id="list of models, which nothing would check"),
        pytest.param({}, id="dict"),
    ],
)
def test_what_is_no_model_is_a_fault_of_the_function(model, log):
    assert invoke(lambda event, context: event.json(model), "POST", json=[]).status == 500
    assert "it takes a class or a function" in log.getvalue()


# -- stand-ins: the same methods, without the packages --


class StandIn:
    """What Event.json and json_default look for in a model of pydantic, and in its ValidationError."""

    def model_dump(self, mode: str) -> Any:
        return {"mode": mode}

    @classmethod
    def model_validate_json(cls, text: str) -> StandIn:
        if "tea" not in text:
            raise Invalid
        return cls()


class Invalid(ValueError):
    def error_count(self) -> int:
        return 1

    def json(self, include_url: bool, include_input: bool) -> str:
        return f'[{{"url":{str(include_url).lower()},"input":{str(include_input).lower()}}}]'


class Struct:
    """What they look for in a Struct."""

    __struct_fields__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


def to_builtins(value: Any, enc_hook: Any) -> Any:
    return {"tag": "Struct", "item": value.item if isinstance(value.item, str) else enc_hook(value.item)}


def decode(text: str, type: Any) -> Any:
    return type(text)


@pytest.fixture
def msgspec(monkeypatch):
    module = types.SimpleNamespace(to_builtins=to_builtins, json=types.SimpleNamespace(decode=decode))
    monkeypatch.setitem(sys.modules, "msgspec", module)


def test_a_stand_in_of_pydantic():
    assert call(lambda event, context: [StandIn()]).text == '[{"mode":"json"}]'
    assert invoke(lambda event, context: event.json(StandIn), "POST", json="tea").json() == {"mode": "json"}
    answer = invoke(lambda event, context: event.json(StandIn), "POST", json="milk")
    assert (answer.status, answer.json()) == (422, {"detail": [{"url": False, "input": False}]})


def test_a_stand_in_of_msgspec(msgspec, log):
    assert call(lambda event, context: [Struct("tea")]).text == '[{"tag":"Struct","item":"tea"}]'
    assert call(lambda event, context: [Struct({1})]).text == '[{"tag":"Struct","item":[1]}]'
    assert invoke(lambda event, context: event.json(Struct), "POST", body=b"[ 1]").json()["item"] == "[ 1]"
    assert call(lambda event, context: [Struct(1j)]).status == 500
    assert "[0].item = 1j of type complex" in log.getvalue()


def test_a_stand_in_of_attrs():
    cls = type("Order", (), {"__attrs_attrs__": (types.SimpleNamespace(name="item"),), "item": DAY})
    assert call(lambda event, context: cls()).text == '{"item":"2026-02-28"}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("ndarray", "[1]", id="array"),
        pytest.param("generic", "1", id="scalar"),
        pytest.param("floating", "0.5", id="float"),
    ],
)
def test_a_stand_in_of_numpy(name, text):
    methods = {"tolist": lambda self: [1], "item": lambda self: 1, "__float__": lambda self: 0.5}
    cls = type(name, (), {"__module__": "numpy", **methods})
    assert call(lambda event, context: [cls()]).text == f"[{text}]"


def test_no_package_is_imported_to_look_for_its_models():
    code = """
import dataclasses, sys, watchdog_app
Order = dataclasses.make_dataclass("Order", ["item"])
answer = watchdog_app.invoke(lambda event, context: [event.json(Order), object()], "POST", json={"item": 1})
print(sys.modules.keys() & {"pydantic", "attr", "attrs", "msgspec", "numpy", "sqlite3", "decimal", "uuid"})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout == "set()\n", done.stderr
