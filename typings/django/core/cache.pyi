from collections.abc import Mapping
from typing import Any

caches: Mapping[str, Any]
