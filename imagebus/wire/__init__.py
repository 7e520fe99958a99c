"""What is on the wire: messages, requests and replies as bytes and headers.

A request carries pixels under a request id and a SHA-256. A reply is JSON that a person can read in any
console consumer, under the same key and `correlation_id`:

    {"id": "…", "sha256": "…", "model": {"name": …, "version": …, "sha256": …},
     "predictions": [{"label": "Sneaker", "probability": 0.981, "top": [["Sneaker", 0.981], …]}, …]}
    {"id": "…", "sha256": "…", "error": {"code": "HASH_MISMATCH", "message": "…", "retryable": false}}

A request in Open Inference Protocol V2 JSON is answered in V2 JSON. Nothing here depends on the bus.

A replier reads requests by `requests.read_request` and writes outcomes by `replies`; a table in `dialects` lists the
kinds of requests. A client's two are `pixels.encode_request` and `results.decode_reply`.
Imports run one way: requests, replies → dialects → openinference, pictures → pixels, results → envelope → message.
"""
