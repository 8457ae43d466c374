"""Every interleaving within a small scope: a search over the real replication code.

Three nodes, a few operations, one link that goes down once. Whatever order the operations, the messages
and the link's failure come in, each state that can arise is visited once, breadth-first, and checked, so
that what is found is found with the fewest steps. This is explicit-state model checking as in SPIN
(Holzmann, "The Model Checker SPIN", 1997) and TLC (Yu, Manolios and Lamport, "Model Checking TLA+
Specifications", 1999), with the program itself as the model. A complete search is evidence for its scope,
not a proof beyond it.

``python -m canister.testing.interleavings`` prints what was searched.
"""

from canister.testing.interleavings.cases import CASES, Case, Op
from canister.testing.interleavings.search import Broken, Explored, explore

__all__ = ["CASES", "Broken", "Case", "Explored", "Op", "explore"]
