"""Collections: tables of a project's own, their rows, filters over them. Source: contract E.5."""
