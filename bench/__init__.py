"""`make bench`: this project's replier beside bare ONNX Runtime and a loop as most people write it.

__main__.py     options, broker, rounds, what is printed
contenders.py   who is measured, and how
ground.py       what all of them stand on: broker, backlog, model, known answers
bare.py  keras_loop.py  echo.py     the references, each a process of its own
program.py  replies.py  measure.py  running a process, checking replies, reading CPU time and memory
table.py        medians and spread as text and as JSON
poison.py       a run of its own: one package in twenty is bad
"""
