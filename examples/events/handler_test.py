import asyncio
from types import SimpleNamespace

import pytest

import handler
from handler import handle, progress
from watchdog_app import invoke


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(handler, "STEP", 0)


def test_events_come_one_by_one():
    answer = invoke(handle, target="/?steps=2")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert list(answer) == [
        b'event: progress\ndata: {"step": 1, "of": 2}\n\n',
        b'event: progress\ndata: {"step": 2, "of": 2}\n\n',
        b'event: done\ndata: {"steps": 2}\n\n',
    ]


def test_number_of_steps_is_bounded():
    assert len(list(invoke(handle, target="/?steps=1000000"))) == 101


def test_work_stops_when_the_caller_goes():
    async def steps():
        context = SimpleNamespace(cancelled=False)
        async for _ in progress(5, context):
            yield "step"
            context.cancelled = True

    async def count():
        return len([step async for step in steps()])

    assert asyncio.run(count()) == 1
