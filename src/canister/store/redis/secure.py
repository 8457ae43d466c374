"""TLS to the servers, by the files that the URL names."""

import logging
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

from canister.errors import ConfigError

logger = logging.getLogger("canister.redis")


class Secure:
    """Makes connections TLS. Files that were renewed count from the next connection on.

    Args:
        files: ``ca``, ``cert`` and ``key``, as far as there are any.

    Raises:
        ConfigError: they hold something else.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._state = self._look()
        self._context = self._load()

    def wrap(self, connected: socket.socket, host: str) -> ssl.SSLSocket:
        """Return a socket on which a handshake with *host* can begin."""
        try:
            state = self._look()
            if state != self._state:  # reading them for each connection would hold an event loop up
                self._context, self._state = self._load(), state
        except ConfigError as error:
            logger.warning("what was read before goes on being used: %s", error)
        return self._context.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)

    def _look(self) -> list[tuple[int, int, int]]:
        """Return what differs once a file has been changed or replaced."""
        try:
            found = [Path(file).stat() for file in self._files.values()]
        except OSError as error:
            raise ConfigError(f"a file in the URL of Redis cannot be read: {error}") from error
        return [(status.st_ino, status.st_size, status.st_mtime_ns) for status in found]

    def _load(self) -> ssl.SSLContext:
        ca, cert = self._files.get("ca"), self._files.get("cert")
        try:
            context = ssl.create_default_context(cafile=ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"ca in the URL of Redis, {ca}, holds no certificates: {error}") from error
        if cert is not None:
            try:
                context.load_cert_chain(cert, self._files.get("key"), password="")
            except (ssl.SSLError, OSError, ValueError) as error:
                raise ConfigError(
                    "cert and key in the URL of Redis are not a certificate and its key without a "
                    f"passphrase: {error}"
                ) from error
        return context
