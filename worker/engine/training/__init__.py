"""Training the torch module of a user's graph: what the passes that train are made of.

student (what is trained: imported, proven, its batch), teacher (what it learns from), readings (which tensor of each
says what an output means), targets (labels by output), features (inner tensors by pairs), losses and objective (what is
minimized), batches (samples into steps), schedules, averaging, masks (what stays zero), judging (on what is held out),
checkpoints, trainer (the loop), lesson (all of that put together for one pass), account (what was done, in words).
"""
