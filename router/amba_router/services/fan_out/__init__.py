"""Fan-out: one function invoked for all users of a segment, in batches. Source: contract E.13."""
