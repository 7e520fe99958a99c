"""Google Cloud Pub/Sub behind the six verbs, on google-cloud-pubsub.

transport.py    the verbs, and the order of things that is the delivery guarantee
clients.py      Google's clients from a service account, and their errors as this project's
intake.py       how messages come: on a stream, or by asking
sender.py       how they go: what waits goes together
attributes.py   headers as attributes, and the service's limits
leases.py       what is in hand, and until when
suspects.py     which message kills its readers
"""

from imagebus.transports.pubsub.transport import PubSubTransport

__all__ = ["PubSubTransport"]
