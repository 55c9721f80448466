"""Currencies: definitions, balances of users, grants and spends. Source: contract E.9."""
