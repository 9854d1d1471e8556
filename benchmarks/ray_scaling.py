"""Three nodes of one CPU against one, on work that sleeps and on work that computes.

    python benchmarks/ray_scaling.py [UNITS [SECONDS]]

A cluster of `ray.cluster_utils` on this machine; 36 made-up units of 0.5 s of three states by
default, each an artefact that travels, is checked and stored. Actors are started before the clock
is, by a unit each. What computes can be as many times faster as this machine has free cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))


def seconds(nodes: int, what: str, units: int, each: float) -> float:
    """Wall time of all units on so many nodes."""
    import ray
    import strange_nodes
    from ray.cluster_utils import Cluster

    from spqr_checks.runtime.engines.ray import Fleet
    from spqr_checks.store.store import Store

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(strange_nodes)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        told = {"device": "cpu", "threads": 1}
        fleet = Fleet(store, "auto", told, node=strange_nodes.MadeUp)
        try:
            for names in (range(-nodes, 0), range(units)):
                work = [strange_nodes.unit(f"{what}{n}", each, (), f"s{n % 3}") for n in names]
                start = time.monotonic()
                fleet.make(lambda work=work: [u for u in work if not store.path(u.kind, u.recipe)])  # type: ignore[misc]
                took = time.monotonic() - start
        finally:
            fleet.close()
            ray.shutdown()
            cluster.shutdown()
    return took


def main() -> None:
    """Prints the two ratios."""
    units = int(sys.argv[1]) if len(sys.argv) > 1 else 36
    each = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5
    for what in ("sleeps", "computes"):
        one, three = (seconds(nodes, what, units, each) for nodes in (1, 3))
        print(f"{what}: {one:.1f} s on one node, {three:.1f} s on three: {one / three:.2f} times")


if __name__ == "__main__":
    main()
