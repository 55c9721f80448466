"""The platform API as a frame: routing, callers, bodies, refusals and the OpenAPI document.

What it answers is the control plane's (`control`) and the services' (`services`).
"""
