"""STORAGE: object storage with the semantics of R2, for functions and on the CDN host.

Contract parts C and E.7. `service` behaves, `rules` decides, `r2_wire` speaks to workerd,
`routes` speaks to browsers. Importing this package is cheap: the store is loaded at first use.
"""
