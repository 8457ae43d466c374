from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

class SessionMiddleware:
    SessionStore: Any
    async_mode: bool
    get_response: Callable[[HttpRequest], Any]
    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None: ...
