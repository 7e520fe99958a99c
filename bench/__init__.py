"""`make bench`: this project's replier beside bare ONNX Runtime and a loop as most people write it.

__main__.py     what is printed
run.py          options, broker, rounds
contenders.py   who is measured, and how
ground.py       what all of them stand on: broker, backlog, model, known answers
program.py  replies.py  measure.py  running a process, checking replies, reading CPU time and memory
table.py        medians and spread as text and as JSON
poison.py       a run of its own: one package in twenty is bad
references/     the programs that the replier is measured against
peers/  growth/  pubsub/   runs of their own: beside other frameworks; as things grow; on Google's emulator

Imports run one way: the runs of their own import what is here and in `references/`, never the reverse.
"""
