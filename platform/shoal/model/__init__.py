"""Values that travel between rooms: workload, plan, cluster."""
