"""Replication without I/O: messages in, messages out; time and chance are arguments."""
