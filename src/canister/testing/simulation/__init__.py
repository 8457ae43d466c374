"""A whole cluster in one process, on virtual time, decided by one seed.

The nodes run the real replication over the reference store (or over SQLite files); only the network, the
clocks and chance are simulated, so that any failure can be repeated from its seed.
"""

from canister.testing.simulation.checks import Violation
from canister.testing.simulation.cluster import Cluster, SimNode
from canister.testing.simulation.scenario import Outcome, run_scenario

__all__ = ["Cluster", "Outcome", "SimNode", "Violation", "run_scenario"]
