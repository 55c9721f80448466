{"fetch": 1}
