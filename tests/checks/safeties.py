"""The lines that keep secrets safe: tests/checks/test_safety.py plants their defects."""

SAFETY = ("safe-profile", "safe-kit")
