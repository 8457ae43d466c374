"""A store on Redis or Valkey: one hash a session, the same edits and the same rule of merging.

What a commit writes is decided in Python on the session as loaded; a short script writes it if the session
is still as it was, and otherwise returns what it is now. Nothing of the rules is written twice.
"""

from canister.store.redis.alone import Alone
from canister.store.redis.store import RedisStore
from canister.store.redis.url import is_redis_url
from canister.store.redis.waiting import beside

__all__ = ["Alone", "RedisStore", "beside", "is_redis_url"]
