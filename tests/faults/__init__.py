"""Faults on purpose, on real Apache Kafka, and a ledger that says whether the promise was kept.

    python3 -m tests.faults [NAME ...]

`faults.py` has one function a fault, `rig.py` the brokers, repliers and load that they act on, `ledger.py`
what is written down and how it is judged.
"""
