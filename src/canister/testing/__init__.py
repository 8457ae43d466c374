"""What a test of Canister, or of a store or program on top of it, can use.

`canister.testing.clock` needs nothing; `canister.testing.contract` needs pytest.
"""
