"""The lines that keep secrets safe: tests/checks/test_safety.py plants their defects."""

SAFETY = ("safe-profile", "safe-kit")
BACKUP = tuple(f"backup-{name}" for name in ("ledger", "point", "log", "proof", "copy"))
"""And tests/checks/test_backup.py those of these."""
