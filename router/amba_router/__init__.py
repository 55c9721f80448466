"""Everything that faces HTTP: dispatcher, control plane, emulated services, store."""
