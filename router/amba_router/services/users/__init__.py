"""End users of a project: how they sign in, what is known of them, their devices.

Source: contract E.3, E.4, E.14, A.6.
"""
