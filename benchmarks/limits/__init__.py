"""What nodes and sessions cost, on the mesh and on a Redis Cluster: ``make bench-limits``."""
