from collections.abc import Callable
from typing import Any

class AdminSite:
    def each_context(self, request: Any) -> dict[str, Any]: ...
    def admin_view(self, view: Callable[..., Any]) -> Callable[..., Any]: ...

site: AdminSite
