"""What a connection tells while a frame comes in."""

import asyncio
import struct
from unittest.mock import MagicMock

import pytest

from canister.agent import connection
from canister.agent.connection import Connection
from canister.replication.messages import MAX_FRAME, Message, Refused, encode_message


async def read(parts: list[bytes]) -> tuple[Message, list[int]]:
    """Read a message that comes in *parts*; return it, and after which of them it was heard."""
    reader = asyncio.StreamReader(limit=1024)
    heard: list[int] = []
    fed = 0
    reading = asyncio.create_task(
        Connection(reader, MagicMock(), None).read(MAX_FRAME, lambda: heard.append(fed))
    )
    for part in parts:
        fed += 1
        reader.feed_data(part)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return await reading, heard


def in_parts(message: Message, size: int) -> list[bytes]:
    payload = encode_message(message)
    data = struct.pack(">I", len(payload)) + payload
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_a_frame_that_is_under_way_is_heard(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each so many bytes of it, in whatever pieces they come; the end is told by the message."""
    monkeypatch.setattr(connection, "_PART", 400)
    message = Refused("x" * 1195)  # 1,200 bytes with what is around it
    assert len(encode_message(message)) == 1200
    got, heard = asyncio.run(read(in_parts(message, size)))
    assert got == message
    assert heard == {1: [404, 804], 100: [5, 9], 10_000: [1, 1]}[size]


def test_a_small_frame_is_not_heard_in_parts() -> None:
    """Who sends a byte now and then is not heard until a message is whole."""
    message = Refused("x" * 10_000)
    assert asyncio.run(read(in_parts(message, 1_000))) == (message, [])
