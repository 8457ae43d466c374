"""The local store: knows records and versions, nothing of HTTP or peers."""
