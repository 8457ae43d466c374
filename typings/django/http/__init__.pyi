from collections.abc import Callable, Iterable, Mapping
from http.cookies import SimpleCookie
from typing import Any

class Http404(Exception): ...

class HttpRequest:
    META: dict[str, Any]
    POST: Mapping[str, str]
    method: str
    path: str
    session: Any
    user: Any
    def get_full_path(self) -> str: ...

class HttpResponse:
    status_code: int
    cookies: SimpleCookie
    close: Callable[[], None]
    def __init__(self, content: str = "", *, status: int, headers: Mapping[str, str]) -> None: ...
    def __setitem__(self, header: str, value: str) -> None: ...
    def items(self) -> Iterable[tuple[str, str]]: ...

class HttpResponseRedirect(HttpResponse):
    def __init__(self, redirect_to: str) -> None: ...
