from collections.abc import Callable
from typing import Any

class CheckMessage:
    id: str
    msg: str

class Error(CheckMessage):
    def __init__(self, msg: str, hint: str | None = None, *, id: str) -> None: ...

class Warning(CheckMessage):
    def __init__(self, msg: str, hint: str | None = None, *, id: str) -> None: ...

class Tags:
    security: str

def register(check: Callable[..., Any], *tags: str) -> None: ...
