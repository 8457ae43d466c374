from typing import Any

from . import global_settings as global_settings

class LazySettings:
    configured: bool
    _wrapped: Any
    def is_overridden(self, setting: str) -> bool: ...
    def __getattr__(self, name: str) -> Any: ...

settings: LazySettings
