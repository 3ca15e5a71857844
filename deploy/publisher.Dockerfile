# The demo publisher: a plain Redis client and nothing of Causeway.
FROM python:3.13-slim
RUN pip install --no-cache-dir "redis>=5,<9"
COPY deploy/host-load.py /usr/local/bin/host-load
USER nobody
ENTRYPOINT ["host-load"]
