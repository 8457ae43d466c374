"""Where sessions move in from: one module for each way in which frameworks have kept them.

Each is an `OldSystem` of `canister.sessions.movein`, to be given to an adapter as ``move_in``.
"""
