"""`python -m bench.growth`: the cost of an image as packages, repliers, partitions, backlog and requestors grow.

__main__.py    the cases, and the tables of what they cost
requestors.py  many requestors in one process
picture.py     the tables as a picture
"""
