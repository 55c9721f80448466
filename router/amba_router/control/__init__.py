"""The control plane: uploads, versions, keys, secrets, logs."""
