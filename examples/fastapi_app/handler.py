"""FastAPI as a function, through a2wsgi: its routes, its validation, its documentation at /docs."""

from a2wsgi import ASGIMiddleware
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

# Behind the gateway, whose path is not the function's: FastAPI(root_path="/function/orders")
api = FastAPI(title="Orders")
ORDERS = {}


class Order(BaseModel):
    item: str = Field(min_length=1, max_length=100)
    quantity: int = Field(1, ge=1, le=50)


@api.post("/orders", status_code=201)
async def add(order: Order):
    ORDERS[len(ORDERS) + 1] = order
    return {"number": len(ORDERS), **order.model_dump()}


@api.get("/orders/{number}")
async def show(number: int) -> Order:
    if number not in ORDERS:
        raise HTTPException(404, "no such order")
    return ORDERS[number]


application = ASGIMiddleware(api)


def handle(event, context):
    return application  # a WSGI application, which answers itself
