"""Remote config: keys with typed values, and what each user gets of them. Source: contract E.8."""
