from collections.abc import Callable
from contextvars import Context
from typing import Any

class greenlet:
    dead: bool
    gr_context: Context | None
    parent: greenlet | None

    def __init__(self, run: Callable[..., Any], parent: greenlet | None = ...) -> None: ...
    def switch(self, *args: Any) -> Any: ...
    def throw(self, type: Any, value: Any = ..., traceback: Any = ...) -> Any: ...

def getcurrent() -> greenlet: ...
