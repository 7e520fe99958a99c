"""`make bench-peers`: this project's replier beside other ways to serve a model over Kafka from Python.

__main__.py     the command line
rounds.py       the contenders, and the figures of a round
open_loop.py    the load: packages leave at scheduled times
report.py       the table, and the targets that the replier meets or misses
environment.py  the peers' own environment, from requirements.txt
faststream_app.py  faststream_single_app.py  quix_app.py    the peers, each as its documentation shows
mlserver.py  mlserver_model.py                  MLServer's settings and requests, and its model
two_convolutions.py   the network of many tutorials, for `--network`
"""
