"""Talking to the API server: the one place in the operator that knows HTTP, tokens and managed fields.

`connection` finds the server and keeps its credentials fresh, `client` makes requests and turns the server's
refusals into named errors, `apply` makes objects equal to what is wanted and `exact` says whether they are,
`lease` decides which replica works, `events` tells people. Nothing here knows what a tenant is.
"""
