"""The control plane: uploads, versions, secrets, logs. The deploy issue fills it."""
