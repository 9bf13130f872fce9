"""The lines that ask the published doors: tests/integration/test_doors.py plants their defects behind real TLS."""

DOORED = (
    "tls-gateway",
    "net-plain",
    "net-presigned",
    "net-pages",
    "access-mlflow",
    "access-phoenix",
    "access-defaults",
    "access-denied",
)
