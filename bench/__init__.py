"""`make bench`: this project's replier beside bare ONNX Runtime and a loop as most people write it.

__main__.py     what is printed
run.py          options, broker, rounds
contenders.py   who is measured, and how
ground.py       what all of them stand on: broker, backlog, model, known answers
bare.py  careless.py  careful_loop.py  keras_loop.py  echo.py   the references, each a process of its own
onnx_model.py   the model of all but the replier
program.py  replies.py  measure.py  running a process, checking replies, reading CPU time and memory
table.py        medians and spread as text and as JSON
peers/          `make bench-peers`: other frameworks, under load and killed, with open_loop.py and two_convolutions.py
growth.py       a run of its own: packages, repliers, partitions, backlogs, requestors (requestors.py) grow
picture.py      what that printed, as a picture
pubsub.py       a run of its own: on Google's emulator, beside what that can do without a model (pubsub_echo.py)
poison.py       a run of its own: one package in twenty is bad
"""
