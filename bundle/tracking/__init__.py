"""Tracking by the rule: every evaluation run goes to MLflow and to Phoenix, with the same keys, folders and snapshots.

A library of its own that imports nothing of the product around it. It reads its addresses, credentials and CA from the
environment, under the names that the stock clients of both trackers read.
"""
