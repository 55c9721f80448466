"""Media: presigned uploads, assets and their end. Source: contract E.7."""
