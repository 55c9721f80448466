"""`{{variable}}` in a prompt's texts: which there are, and filling them in. Source: E.10."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from amba_router.api import faults
from amba_runtime import limits

_VARIABLE = re.compile(r"\{\{\s{0,16}([A-Za-z_][A-Za-z0-9_]{0,63})\s{0,16}\}\}")


def variables_of(*texts: str) -> list[str]:
    """Their names, each once, in order of their first use."""
    return list(dict.fromkeys(name for text in texts for name in _VARIABLE.findall(text)))


def fill(texts: Iterable[str], values: Mapping[str, Any]) -> list[str]:
    """The texts with values in the place of their variables.

    A value goes in as it is, and is not looked through for variables again; what is neither text
    nor number goes in as JSON. Values that no text wants are ignored.

    Raises:
        Refused: MISSING_VARIABLES with `details.missing`, PAYLOAD_TOO_LARGE.
    """
    texts = list(texts)
    missing = [name for name in variables_of(*texts) if name not in values]
    if missing:
        raise faults.MISSING_VARIABLES.refuse(
            f"the prompt wants values for {', '.join(missing[:16])}: send them in variables",
            {"field": "$.variables", "missing": missing},
        )
    words = {name: _as_text(values[name]) for name in variables_of(*texts)}
    room = limits.AI_RENDERED_BYTES.value
    filled: list[str] = []
    for text in texts:
        # counted before it is made: a short template can ask for one long value very often
        names = _VARIABLE.findall(text)
        room -= len(text.encode()) + sum(len(words[name].encode()) for name in names)
        if room < 0:
            raise faults.PAYLOAD_TOO_LARGE.refuse(
                f"with its variables filled in the prompt passes {limits.AI_RENDERED_BYTES.value} "
                "bytes; send shorter ones",
                {"bytes_max": limits.AI_RENDERED_BYTES.value},
            )
        filled.append(_VARIABLE.sub(lambda found: words[found[1]], text))
    return filled


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
