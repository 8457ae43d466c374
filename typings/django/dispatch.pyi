from collections.abc import Callable
from typing import Any

class Signal:
    def connect(self, receiver: Callable[..., Any], *, dispatch_uid: str) -> None: ...
