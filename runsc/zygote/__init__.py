"""A process that has everything imported, of which the processes of a start are forks."""
