"""The gRPC service: sessions, admission, operation."""
