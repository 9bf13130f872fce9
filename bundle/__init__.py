"""tracking-bundle: MLflow and Phoenix for closed networks, sealed into one file."""

__version__ = "0.1.0"
