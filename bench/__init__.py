"""`make bench`: this project's replier beside bare ONNX Runtime and the loop that most people write.

__main__.py     the command line
run.py          options, broker, rounds
contenders.py   the contenders and their measurement
ground.py       common to all of them: broker, backlog, model, known answers
program.py  replies.py  measure.py  running a process, checking replies, reading CPU time and memory
table.py        medians and spread as text and as JSON
poison.py       a run of its own: one package in twenty is bad
references/     the programs that the replier is measured against
peers/  growth/  pubsub/   runs of their own: beside other frameworks; as things grow; on Google's emulator

Imports run one way: the runs of their own import from here and from `references/`, never the reverse.
"""
