"""Drives the API with toxiproxy-python, a client written for Toxiproxy: `clients.py API UPSTREAM`."""

import socket
import sys
import time

from toxiproxy import Toxiproxy

api, upstream = (tuple(address.rsplit(":", 1)) for address in sys.argv[1:3])


def ask(proxy):
    with socket.create_connection(tuple(proxy.listen.rsplit(":", 1)), timeout=10) as connection:
        connection.settimeout(10)
        connection.sendall(b"hello")
        begun = time.monotonic()
        answer = connection.recv(5)
        return answer, time.monotonic() - begun


server = Toxiproxy()
server.update_api_consumer(api[0], int(api[1]))
assert server.running() and server.version()
server.populate([{"name": "users", "upstream": ":".join(upstream), "listen": "127.0.0.78:0"}])
users = server.get_proxy("users")
assert users.enabled and ask(users)[0] == b"hello"

users.add_toxic(type="latency", attributes={"latency": 300, "jitter": 0})
assert [toxic for toxic in users.toxics()] == ["latency_downstream"]
assert ask(users)[1] >= 0.3
users.destroy_toxic("latency_downstream")
assert ask(users)[1] < 0.3

users.disable()
try:
    ask(users)
    sys.exit("it still listens")
except OSError:
    pass
users.enable()
assert ask(users)[0] == b"hello"

users.add_toxic(type="timeout", attributes={"timeout": 1})
server.reset()
assert server.get_proxy("users").toxics() == {}
server.destroy_all()
assert server.proxies() == {}
print("toxiproxy-python is content")
