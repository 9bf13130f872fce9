"""The lines of the CA itself: tests/checks/test_authority.py plants their defects."""

AUTHORITY = ("tls-authority", "tls-root-key")
