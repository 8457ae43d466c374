"""What run.py tells each node's process through its environment."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Which node this process is, and where the others are."""

    node: int
    data: Path
    ports: list[int]
    mesh: list[str]
    command: str
    """How the `canister` command is called from where the demo was started."""

    def number_of(self, mesh_address: str) -> int | None:
        """Return the number of the node that listens for its peers on an address."""
        return self.mesh.index(mesh_address) + 1 if mesh_address in self.mesh else None


def settings_from_environment() -> Settings:
    return Settings(
        node=int(os.environ["SHOP_NODE"]),
        data=Path(os.environ["SHOP_DATA"]),
        ports=[int(port) for port in os.environ["SHOP_PORTS"].split(",")],
        mesh=os.environ["SHOP_MESH"].split(","),
        command=os.environ["SHOP_COMMAND"],
    )
