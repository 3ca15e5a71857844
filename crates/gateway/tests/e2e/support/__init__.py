"""The words the stories are told in: a Redis server, nodes, nginx, tokens, subscribers."""
