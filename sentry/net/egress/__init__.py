"""Which connections may leave a sandbox: rules, what they say of a flow, and the flows."""
