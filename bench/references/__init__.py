"""The programs that the replier is measured against on Kafka, each a process of its own.

bare.py          the upper bound: ONNX Runtime alone
echo.py          the bus alone, without a model
careless.py      the replier without its guarantee
careful_loop.py  keras_loop.py   the loops that a careful person and most people write
onnx_model.py    the model of the careful loop and of the peers
"""
