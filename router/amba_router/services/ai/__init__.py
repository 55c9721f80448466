"""The AI gateway: canned replies, recorded ones, or a real provider's; prompts and their budgets.

`canned` makes replies, `anthropic` and `openai` give them their providers' shapes, `service` picks
where a call goes and counts what it costs, `gateway` and `routes` are the wire.
Source: contract E.10, H-29.
"""
