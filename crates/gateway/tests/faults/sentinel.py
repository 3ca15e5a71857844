"""A Redis master with a replica, and a Sentinel that promotes the replica when the master is gone or when it is asked to."""

import contextlib

import redis
from support.process import Process, free_port, until
from support.redis_server import RedisServer

NAME = "bus"


class Sentinel(Process):
    def __init__(self, directory, master):
        super().__init__("sentinel", directory)
        self.port = free_port(self.address)
        self.config = self.directory / "sentinel.conf"
        self.config.write_text(
            f"bind {self.address}\nport {self.port}\ndir {self.directory}\n"
            f"sentinel monitor {NAME} {master.address} {master.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 4000\n"
        )

    def command(self):
        return ["redis-server", str(self.config), "--sentinel"]

    def client(self):
        return redis.Redis(host=self.address, port=self.port, decode_responses=True)

    def ready(self):
        """It knows the replica, too."""
        with contextlib.suppress(redis.exceptions.ConnectionError), self.client() as client:
            (told,) = [told for told in client.execute_command("SENTINEL", "MASTERS") if told["name"] == NAME]
            return int(told["num-slaves"]) == 1
        return False

    def master(self):
        """The place of the present one, `address:port`."""
        with self.client() as client:
            return ":".join(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME))

    def fail_over(self):
        with self.client() as client:
            client.execute_command("SENTINEL", "FAILOVER", NAME)


@contextlib.contextmanager
def watched_pair(directory):
    """(master, replica, sentinel), the replica in step with its master."""
    with RedisServer(directory) as master, RedisServer(directory, "replica") as replica:
        for one in (master, replica):
            with one.client() as client:
                # Otherwise the others know it by the address that it connects from, where it does not listen.
                client.config_set("replica-announce-ip", one.address)
        with replica.client() as client:
            client.replicaof(master.address, master.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica is in step")
        with Sentinel(directory, master) as sentinel:
            yield master, replica, sentinel
