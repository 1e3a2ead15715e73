"""What talks to a cluster or prepares what is put there."""
