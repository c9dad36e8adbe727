"""OpenStack Swift with its S3 API as one process: account, container, object and proxy servers.

Run by the Python of Swift's own environment: `python swift_process.py FOLDER`. It keeps everything
below FOLDER, prints the proxy's port when it answers, and ends when its stdin does.
"""

import eventlet

eventlet.monkey_patch()

import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from time import monotonic  # noqa: E402
from typing import Any  # noqa: E402

from eventlet import wsgi  # noqa: E402
from paste.deploy import loadapp  # noqa: E402
from swift.common import utils  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.storage_policy import reload_storage_policies  # noqa: E402

PIPELINE = "catch_errors listing_formats s3api tempauth copy slo proxy-server"
FILTERS = ("catch_errors", "listing_formats", "copy", "slo")
SERVICES = {"account": "account", "container": "container", "object": "object"}


class Memory:
    """What memcached is to a Swift: without it, each request asks what its account and bucket are.

    Values are kept as JSON, since who gets one may change it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, float]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        text, until = self._kept.get(key, ("null", 0.0))
        return json.loads(text) if monotonic() < until else None

    def set(self, key: str, value: Any, time: float, **options: Any) -> None:
        self._kept[key] = json.dumps(value), monotonic() + time

    def delete(self, key: str) -> None:
        self._kept.pop(key, None)


def remembering(app: Any) -> Any:
    """The same server with a memory."""
    memory = Memory()

    def answer(environment: dict[str, Any], start: Any) -> Any:
        return app({**environment, "swift.cache": memory}, start)

    return answer


def main(folder: Path) -> None:
    listeners = {name: eventlet.listen(("127.0.0.1", 0)) for name in (*SERVICES, "proxy")}
    (folder / "devices" / "d1").mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    utils.set_swift_dir(str(folder))
    reload_storage_policies()
    for name in SERVICES:
        write_ring(folder / f"{name}.builder", listeners[name].getsockname()[1])
        (folder / f"{name}.conf").write_text(server_conf(folder, name))
    (folder / "proxy.conf").write_text(proxy_conf(folder))
    for name, listener in listeners.items():
        # Else the second part of an answer waits 40 ms for the first's receipt.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = loadapp(f"config:{folder / name}.conf")
        served = remembering(app) if name == "proxy" else app
        eventlet.spawn(wsgi.server, listener, served, log_output=False)
    print(listeners["proxy"].getsockname()[1], flush=True)
    # Reading blocks, so it is done in a thread that is none of eventlet's.
    eventlet.patcher.original("threading").Thread(target=end_with_stdin).start()
    while True:
        eventlet.sleep(60)


def end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def write_ring(builder_path: Path, port: int) -> None:
    builder = RingBuilder(4, 1, 0)
    builder.add_dev(
        {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "d1",
         "weight": 1.0, "replication_ip": "127.0.0.1", "replication_port": port}
    )  # fmt: skip
    builder.rebalance()
    builder.get_ring().save(str(builder_path.with_suffix(".ring.gz")))


def server_conf(folder: Path, name: str) -> str:
    return (
        f"[DEFAULT]\ndevices = {folder / 'devices'}\nmount_check = false\nswift_dir = {folder}\n"
        "log_level = ERROR\nfallocate_reserve = 0\n"
        f"[pipeline:main]\npipeline = {name}-server\n"
        f"[app:{name}-server]\nuse = egg:swift#{name}\n"
    )


def proxy_conf(folder: Path) -> str:
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in FILTERS)
    return (
        f"[DEFAULT]\nswift_dir = {folder}\nlog_level = ERROR\n"
        f"[pipeline:main]\npipeline = {PIPELINE}\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\n"
        "account_autocreate = true\n"
        "[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = testing .admin\n"
        "[filter:s3api]\nuse = egg:swift#s3api\nlocation = us-east-1\ns3_acl = false\n"
        f"{filters}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
