"""What tests share: fakes that behave, naive twins that are obvious, servers to talk to."""
