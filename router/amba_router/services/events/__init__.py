"""Events: what users did, tracked, listed and counted. Source: contract E.6."""
