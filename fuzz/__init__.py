"""`make fuzz`: messages from the bus, made up by libFuzzer, which watches the code's branches.

__main__.py         runs a target under atheris
decode_request.py   any record at a replier: one outcome, of the correct kind
decode_reply.py     any reply at a requestor: read, or refused as malformed
seeds.py            writes the first files of corpus/; the others were kept by the fuzzer, and minimised
"""
