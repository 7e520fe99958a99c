"""`python -m bench.pubsub`: the replier on Google's emulator, beside that without a model and beside Kafka.

__main__.py  who is measured, and the table
echo.py      the emulator without a model
"""
