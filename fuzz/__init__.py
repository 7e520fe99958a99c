"""`make fuzz`: what comes over the bus, made up by libFuzzer from what it has seen the code do.

__main__.py         runs a target under atheris
decode_request.py   any record at a replier: one outcome, of the right kind
decode_reply.py     any reply at a requestor: read, or refused as malformed
seeds.py            writes the first files of corpus/; the others are what the fuzzer kept, minimised
"""
