"""Segments of a project's users: rules, who is in them, and when that is found out anew.

Source: contract E.13.
"""
