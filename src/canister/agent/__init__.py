"""The one process of a node that replicates: an asyncio loop around `canister.replication`."""
