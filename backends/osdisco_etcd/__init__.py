"""etcd v3, over gRPC (`etcd://`, `etcds://`) and over its JSON gateway (`etcd+http://`, `etcd+https://`)."""

from osdisco_etcd._backend import EtcdBackend, EtcdGatewayBackend
from osdisco_etcd._options import EtcdOptions

__all__ = ["EtcdBackend", "EtcdGatewayBackend", "EtcdOptions"]
