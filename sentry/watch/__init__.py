"""What happens in a sandbox, told to who listens."""
