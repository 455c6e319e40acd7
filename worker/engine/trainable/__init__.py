"""A user's graph as a torch module that trains, and its weights back into the user's file.

`claims` says which operators that covers, and `weights` which constants are trained; neither imports torch, as the rest
does.
"""
